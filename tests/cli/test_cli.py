"""The command line, run as a user runs it."""

import importlib
import inspect
import json
import subprocess
import sys

import pytest

import exmem
from exmem import ExemplarMemory
from exmem.cli.main import COMMANDS, main
from tests.exemplars import exemplar, schema


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command here; return its exit code and what it printed."""

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["exmem", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

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
    assert err == "exmem: this needs the package transformers; pip install 'exmem[train,demo]'\n"
    assert [*tmp_path.iterdir()] == []


def test_an_incomplete_exmem_is_no_missing_package(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "exmem.cli.info", None)
    with pytest.raises(ModuleNotFoundError):
        run("info", "memory")


@pytest.mark.parametrize("rest", [[], ["--help"], ["-h"], ["memory", "--json"]])
@pytest.mark.parametrize("word", ["nonsense", "inf", "--json", ""])
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
        if name == "train":
            continue  # its function is made for its words
        summary = inspect.getdoc(getattr(importlib.import_module(module), function)).partition("\n")[0]
        assert f"{name} {summary}" in told
    assert "train Learn the classes of a folder phase after phase" in told


def test_without_a_command_the_help_is_printed_and_the_code_says_that_nothing_was_done(run):
    code, told, err = run()
    assert (code, err) == (2, "")
    assert told == run("--help")[1]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train"])
def test_every_command_has_a_help_of_its_own(run, name):
    code, told, _ = run(name, "--help")
    assert code == 0
    assert told.startswith(f"usage: exmem {name} [-h]")


def test_a_wrong_word_of_a_command_is_told_with_its_usage(run):
    code, _, err = run("info", "memory", "--jsno")
    assert code == 2
    assert "--jsno" in err
    assert "exmem info" in err


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
        ["show", "--help"],
        ["demo", "--help"],
        ["score", "--help"],
    ]
    words += [["info", place], ["check", place], ["repair", place], ["compact", place]]
    words += [["export", place, str(tmp_path / "exported.tar")], ["import", str(tmp_path / "exported.tar"), other]]
    script = LIGHT.replace("WORDS", repr(words))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_demo_writes_into_no_folder_of_others(tmp_path, run):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = run("demo", "--out", tmp_path)
    assert code == 1
    assert "expected an empty folder or one of the demo, found ['thesis.tex']" in " ".join(err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
