"""The command line, run as a user runs it."""

import importlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys

import pytest

import exmem
from exmem import ExemplarMemory
from exmem.cli.main import COMMANDS
from tests.cli.running import outcome
from tests.exemplars import exemplar, schema


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command here; return its exit code and what it printed."""

    def command(*words):
        return outcome(words, monkeypatch, capsys)

    return command


def test_info_tells_what_a_memory_holds(tmp_path, run):
    with ExemplarMemory.create(tmp_path / "memory", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(seed, label=seed % 2) for seed in range(5)])
    code, out, err = run("info", tmp_path / "memory", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["exemplars"], told["max_bytes"]) == (5, 100_000)
    assert {label: held["exemplars"] for label, held in told["classes"].items()} == {"0": 3, "1": 2}
    assert told["quota"] == {"unit": "bytes", "weights": {}}
    assert "image: 16 positions" in run("info", tmp_path / "memory")[1]


def test_info_tells_the_quota_and_the_weights(tmp_path, run):
    with ExemplarMemory.create(tmp_path / "memory", schema=schema(), max_bytes="100kB", quota="counts") as memory:
        memory.weigh({1: 2.5})
        memory.add([exemplar(seed, label=seed % 2) for seed in range(5)])
        expected = {str(label): held.quota_bytes for label, held in memory.summary().items()}
    told = json.loads(run("info", tmp_path / "memory", "--json")[1])
    assert told["quota"] == {"unit": "counts", "weights": {"1": 2.5}}
    assert {label: held["weight"] for label, held in told["classes"].items()} == {"0": 1.0, "1": 2.5}
    assert {label: held["quota_bytes"] for label, held in told["classes"].items()} == expected
    _, table, _ = run("info", tmp_path / "memory")
    assert "quota counts" in table.replace("\n", " ")
    assert "2.5" in table


def test_the_package_runs_as_a_module_and_tells_its_version(tmp_path):
    for start in (["-m", "exmem"], ["-c", "from exmem.cli.main import main; main()"]):
        found = subprocess.run([sys.executable, *start, "--version"], capture_output=True, text=True, check=True)
        assert found.stdout == f"exmem {exmem.__version__}\n"
    command = [sys.executable, "-m", "exmem", "info", str(tmp_path / "nothing")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr.startswith("exmem: ")) == (1, True)


def test_an_error_is_one_line_and_a_failing_exit_code(tmp_path, run):
    code, out, err = run("info", tmp_path / "nothing")
    assert (code, out) == (1, "")
    assert err.startswith("exmem: ")
    assert err.count("\n") == 1


def test_a_missing_package_is_named_with_the_remedy(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, _, err = run("demo")
    assert code == 1
    told = r"exmem: this needs the package transformers; install it .*pip install 'exmem\[train,demo\]'\)\n"
    assert re.fullmatch(told, err)
    assert [*tmp_path.iterdir()] == []


def test_an_incomplete_exmem_is_a_fault_and_no_missing_package(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "exmem.cli.info", None)
    code, out, err = run("info", "memory")
    assert (code, out) == (70, "")
    assert err.startswith("exmem: a fault: ModuleNotFoundError: ")


@pytest.mark.parametrize("rest", [[], ["--help"], ["-h"], ["memory", "--json"]])
@pytest.mark.parametrize("word", ["nonsense", "inf", "--jsno", ""])
def test_an_unknown_command_is_an_error_and_names_those_that_are_known(run, word, rest):
    code, out, err = run(word, *rest)
    assert (code, out) == (2, "")
    assert err == f"exmem: unknown command {word!r}; it is one of {', '.join(COMMANDS)}\n"


def test_the_help_lists_every_command_with_the_first_line_of_its_docstring(run):
    code, told, err = run("--help")
    assert (code, err) == (0, "")
    assert run("-h")[1] == told
    told = " ".join(told.split())
    for name, place in COMMANDS.items():
        module, _, function = place.partition(":")
        if name == "train" or (name in NEEDS_TORCH and importlib.util.find_spec("torch") is None):
            continue  # the function of `train` is made for its words
        summary = inspect.getdoc(getattr(importlib.import_module(module), function)).partition("\n")[0]
        assert f"{name} {summary}" in told
    assert "train Learn the classes of a folder phase after phase" in told


def test_without_a_command_the_help_is_printed_and_the_code_says_that_nothing_was_done(run):
    code, told, err = run()
    assert (code, err) == (2, "")
    assert told == run("--help")[1]


NEEDS_TORCH = ("advise", "train")  # to say what their options are


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.torch) if name in NEEDS_TORCH else name
        for name in COMMANDS
        if name != "train"
    ],
)
def test_every_command_has_a_help_of_its_own(run, name):
    code, told, _ = run(name, "--help")
    assert code == 0
    assert told.startswith(f"usage: exmem {name} [-h]")


def test_a_wrong_word_of_a_command_is_told_with_its_usage(run):
    code, _, err = run("info", "memory", "--jsno")
    assert code == 2
    assert "--jsno" in err
    assert "exmem info" in err


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("data", "missing: DATA"),
        ("data a b c", "nothing is known of: b, c"),
        (
            "demo --max-bytes x",
            "--max-bytes: expected bytes as an integer or text such as '64MB' or '1.5 GiB', got 'x'",
        ),
        ("demo --seed", "--seed: expected INT, got nothing"),
        (
            "import a b --max-bytes x",
            "--max-bytes: expected bytes as an integer or text such as '64MB' or '1.5 GiB', got 'x'",
        ),
        ("info x --jsno", "unknown option --jsno; close to it: --json, --no-json"),
        ("show x --most 1.5", "--most: expected INT, got '1.5'"),
        ("show x --slots a", "--slots: expected INT ..., got 'a'"),
        ("score a b --backbone c", "expected one of 'joint', 'vilt', 'clip', 'siglip', 'vit', 'dinov2', got 'c'"),
    ],
)
def test_what_is_wrong_with_the_words_of_a_command_is_one_line_in_a_users_names(run, monkeypatch, words, told, columns):
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = run(*words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("exmem: ")
    assert err.endswith(f"{told}; see `exmem {words.split()[0]} --help`\n")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--recipe.nonsense 1", "unknown option --recipe.nonsense; close to it: --recipe.name, --recipe.keep, "),
        ("DATA --quota abc", "--quota: expected one of 'bytes', 'counts', 'frequency', got 'abc'; "),
        ("DATA", "missing: --out RUN; "),
        ("DATA --out x --loop.epochs 0", "loop.epochs must be an integer of 1.."),
        ("DATA --out x --loop.lr a", "--loop.lr: expected FLOAT, got 'a'; "),
        ("DATA --out x --data.first-classes a", "--data.first-classes: expected INT, got 'a'; "),
        ("DATA --out x --max_bytes a", "expected bytes as an integer or text such as"),
        ("DATA --out x --recipe a", "unknown recipe 'a'; choose one of ['features', "),
        ("DATA --out x --recipe.scorer a", "unknown scorer 'a'; choose one of ['attention_rollout', "),
    ],
)
def test_what_is_wrong_with_the_options_of_a_run_is_one_line_in_a_users_names(run, words, told):
    pytest.importorskip("torch")
    code, out, err = run("train", *words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"exmem: {told}")
    assert err.endswith("; see `exmem train --help`\n")


def alone(script, *words, **streams):
    """Run a script in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.run(command, **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams), check=False)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_is_wrong_is_told_the_same_way_whatever_a_terminal_can_draw(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for words, told in (
        (["data"], "missing: DATA; see `exmem data --help`"),
        (["show", "x", "--slots", "a"], "--slots: expected INT ..., got 'a'; see `exmem show --help`"),
    ):
        done = alone("from exmem.cli.main import main; main()", *words, env=environment)
        assert (done.returncode, done.stderr.decode()) == (2, f"exmem: {told}\n")


@pytest.mark.parametrize("name", ["numpy", "tyro", "exmem.cli.info", "rich.console", "exmem.memory"])
def test_an_interrupt_while_a_command_is_imported_is_told_without_a_traceback(name):
    script = f"""
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from exmem.cli.main import main
main()
"""
    done = alone(script, "info", "nothing")
    assert done.returncode == 130
    assert done.stderr == b"exmem: interrupted; run the same command again to continue\n"


def test_an_interrupt_in_a_finaliser_is_not_lost():
    script = """
import signal, time, weakref
import exmem.cli.info
from exmem.cli.main import main
class Forgotten:
    pass
def opened(place):
    forgotten = Forgotten()
    weakref.finalize(forgotten, signal.raise_signal, signal.SIGINT)
    del forgotten
    time.sleep(20)
exmem.cli.info.ExemplarMemory.open = opened
main()
"""
    done = alone(script, "info", "nothing")
    assert done.returncode == 130
    assert done.stderr == b"exmem: interrupted; run the same command again to continue\n"


@pytest.mark.parametrize("json", [[], ["--json"]], ids=str)
def test_a_reader_that_goes_away_ends_a_command_without_a_word(tmp_path, json):
    with ExemplarMemory.create(tmp_path / "memory", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(0)])
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = alone("from exmem.cli.main import main; main()", "info", tmp_path / "memory", *json, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_is_told_without_a_traceback(run, monkeypatch):
    def interrupted(path, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("exmem.cli.info.ExemplarMemory.open", interrupted)
    assert run("info", "memory") == (130, "", "exmem: interrupted; run the same command again to continue\n")


LIGHT = """
import sys
from exmem.cli.main import main
for words in WORDS:
    sys.argv = ["exmem", *words]
    try:
        main()
    except SystemExit as ended:
        assert ended.code in {0, 2}, (words, ended.code)
    heavy = {"torch", "transformers", "datasets", "matplotlib", "accelerate"} & {*sys.modules}
    assert not heavy, (words, heavy)
"""


def test_what_needs_no_torch_imports_none(tmp_path):
    with ExemplarMemory.create(tmp_path / "memory", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(0)])
    place, other = str(tmp_path / "memory"), str(tmp_path / "other")
    words = [
        ["--help"],
        ["--version"],
        [],
        ["nonsense"],
        ["data", "--help"],
        ["caption", "--help"],
        ["show", "--help"],
        ["demo", "--help"],
        ["score", "--help"],
        ["completion", "--help"],
    ]
    words += [["info", place], ["check", place], ["repair", place], ["compact", place]]
    words += [["export", place, str(tmp_path / "exported.tar")], ["import", str(tmp_path / "exported.tar"), other]]
    script = LIGHT.replace("WORDS", repr(words))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.torch
def test_a_demo_writes_into_no_folder_of_others(tmp_path, run):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = run("demo", "--out", tmp_path)
    assert code == 1
    assert "expected an empty folder or one of the demo, found ['thesis.tex']" in " ".join(err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
