"""How commands end: every exit code by what brings it about, one line an error, and tracebacks."""

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from exmem import ExemplarMemory
from exmem.cli.ending import CODES
from exmem.cli.main import COMMANDS
from tests.cli.running import outcome
from tests.exemplars import exemplar, schema

START = [sys.executable, "-c", "from exmem.cli.main import main; main()"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command here; return its exit code and what it printed."""
    return lambda *words: outcome(words, monkeypatch, capsys)


@pytest.fixture
def memory(tmp_path):
    place = tmp_path / "memory"
    with ExemplarMemory.create(place, schema=schema("lossless"), max_bytes="100kB", durable=False) as made:
        made.add([exemplar(0), exemplar(1)])
    return place


def damage(memory):
    shard = sorted(memory.glob("e*/image/c.*"))[0]
    data = bytearray(shard.read_bytes())
    data[7] ^= 4
    shard.write_bytes(bytes(data))


def raising(error):
    def opened(place):
        raise error

    return opened


# What a command reads, by its words; PLACE is what is wrong with them.
READS = {
    "data": "PLACE",
    "caption": "PLACE --model none",
    "advise": "PLACE --max-bytes 1MB --out OUT",
    "train": "PLACE --out OUT",
    "eval": "PLACE DATA",
    "predict": "PLACE image.png",
    "tradeoff": "PLACE --out OUT",
    "compare": "PLACE --out OUT",
    "info": "PLACE",
    "show": "PLACE --out OUT.png",
    "score": "PLACE text --out OUT.png",
    "check": "PLACE",
    "repair": "PLACE",
    "compact": "PLACE",
    "export": "PLACE OUT",
    "import": "PLACE OUT",
}
NO_PLACE = {"demo", "completion"}
# What a command writes; WRONG cannot be made.
WRITES = {
    "advise": "DATA --max-bytes 1MB --out WRONG",
    "train": "DATA --out WRONG",
    "tradeoff": "CONFIG --out WRONG",
    "demo": "--out WRONG",
    "show": "MEMORY --out WRONG",
    "score": "IMAGE text --out WRONG",
    "export": "MEMORY WRONG",
    "import": "EXPORTED WRONG",
    "compact": "WRONG",
    "repair": "WRONG",
}
TORCH = {"advise", "caption", "compare", "data", "demo", "eval", "predict", "score", "show", "tradeoff", "train"}
"""Commands that need what the extra `train` installs, to do anything or to say what they lack."""


def each(names):
    return [pytest.param(name, marks=pytest.mark.torch) if name in TORCH else name for name in names]


@pytest.fixture
def wrong(tmp_path):
    (tmp_path / "file").write_text("no data")
    (tmp_path / "empty").mkdir()
    return {
        "missing": tmp_path / "nothing",
        "empty folder": tmp_path / "empty",
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "inner",
        "long name": tmp_path / ("x" * 300),
        "loop": _loop(tmp_path / "loop"),
    }


def _loop(path):
    path.symlink_to(path)
    return path


def _is_a_line(err):
    return err.startswith("exmem: ") and err.count("\n") == 1 and "Traceback" not in err and "fault" not in err


def test_every_command_that_reads_or_writes_is_in_the_matrix():
    assert READS.keys() | NO_PLACE == COMMANDS.keys()
    assert WRITES.keys() < COMMANDS.keys()


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["", "json"])
@pytest.mark.parametrize("kind", ["missing", "empty folder", "file", "below a file", "long name", "loop"])
@pytest.mark.parametrize("name", each(READS))
def test_a_place_that_is_not_what_a_command_reads_is_one_line(tmp_path, run, wrong, name, kind, json):
    words = READS[name].replace("PLACE", str(wrong[kind])).replace("OUT", str(tmp_path / "out")).split()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(name, *words, *json)
    assert (code, out) == (2 if name == "tradeoff" else 1, "")  # a configuration is a part of what is asked
    assert _is_a_line(err), err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read and write everything")
@pytest.mark.parametrize("name", ["info", "check", "export", "repair", "compact"])
def test_what_may_not_be_read_is_one_line(tmp_path, run, memory, name):
    memory.chmod(0)
    try:
        code, out, err = run(name, memory, *([tmp_path / "out"] if name == "export" else []))
    finally:
        memory.chmod(0o755)
    assert (code, out) == (1, "")
    assert _is_a_line(err), err


@pytest.fixture
def words_of(tmp_path, memory, run, wrong):
    """The words of a command that writes below a file, or in the place of one."""

    def words(name, place):
        known = {"MEMORY": memory, "WRONG": place}
        if name == "import":
            known["EXPORTED"] = tmp_path / "exported"
            assert run("export", memory, known["EXPORTED"])[0] == 0
        if name in {"advise", "train", "tradeoff", "score"}:
            from tests.tiny import write_imagefolder

            known["DATA"] = data = write_imagefolder(tmp_path / "data")
            known["IMAGE"] = sorted(data.rglob("*.png"))[0]
            known["CONFIG"] = tmp_path / "config.json"
            document = {"data": {"own": str(data)}, "recipes": ["half_jpeg"], "budgets": ["20kB"]}
            known["CONFIG"].write_text(json.dumps(document))
        return [str(known.get(word, word)) for word in WRITES[name].split()]

    return words


@pytest.mark.parametrize("kind", ["file", "below a file"])
@pytest.mark.parametrize("name", each(WRITES))
def test_a_place_that_cannot_be_written_is_one_line(run, wrong, words_of, name, kind):
    words = words_of(name, wrong[kind])
    code, out, err = run(name, *words)
    assert (code, out) == (1, "")
    assert _is_a_line(err), err
    assert wrong["file"].read_text() == "no data"


@pytest.mark.parametrize("name", each(sorted(COMMANDS)))
@pytest.mark.parametrize("json", [[], ["--json"]], ids=["", "json"])
def test_an_unknown_option_is_asked_wrongly(run, name, json):
    code, out, err = run(name, "--nonsense", *json)
    assert (code, out) == (2, "")
    assert err.startswith("exmem: unknown option --nonsense")
    assert _is_a_line(err)


def test_the_help_lists_every_exit_code(run):
    told = run("--help")[1].partition("exit codes:\n")[2]
    assert [int(number) for number in re.findall(r"^  (\d+) ", told, re.MULTILINE)] == [*CODES]


def test_a_command_that_did_all_ends_with_0(memory, run):
    assert run("check", memory) == (0, "no damage\n", "")


def test_a_memory_that_is_damaged_ends_with_3(memory, run):
    damage(memory)
    for words in ([], ["--json"]):
        code, out, err = run("check", memory, *words)
        assert (code, err) == (3, "")
        assert out
    assert run("repair", memory)[0] == 0


@pytest.mark.torch
def test_data_that_is_broken_ends_with_1_and_is_named(tmp_path, run):
    from tests.tiny import write_imagefolder

    data = write_imagefolder(tmp_path / "data")
    broken = sorted((data / "train").glob("*.png"))[3]
    broken.write_bytes(b"no image")
    code, out, err = run("data", data, "--json")
    assert (code, len(json.loads(out)["problems"]), err) == (1, 1, "")
    (data / "train" / "metadata.jsonl").write_text("{")
    code, out, err = run("train", data, "--out", tmp_path / "run")
    assert (code, out) == (1, "")
    assert "metadata.jsonl" in err
    assert _is_a_line(err)


def test_an_interrupt_ends_with_130(memory):
    script = "import exmem.cli.info, time; exmem.cli.info.find_store = lambda place: (print('begun', flush=True),"
    script += " time.sleep(60)); from exmem.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "info", memory], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err == "exmem: interrupted; run the same command again to continue\n"


@pytest.mark.parametrize("words", ["--help", "--version", "info --help", "info MEMORY --json"])
def test_a_reader_that_went_away_ends_with_141_and_no_word(memory, words):
    words = [str(memory) if word == "MEMORY" else word for word in words.split()]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([*START, *words], stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", ["--help", "check MEMORY", "info MEMORY --json"])
def test_a_full_disk_ends_with_1_in_plain_words(memory, words):
    words = [str(memory) if word == "MEMORY" else word for word in words.split()]
    with pathlib.Path("/dev/full").open("w") as full:
        done = subprocess.run([*START, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "exmem: no room is left on the disk\n")


@pytest.mark.parametrize("file", ["state/zarr.json", "e0/image/zarr.json"])
@pytest.mark.parametrize("name", ["check", "repair", "info"])
def test_damaged_metadata_end_with_3_unless_they_are_repaired(memory, run, name, file):
    data = (memory / file).read_bytes()
    (memory / file).write_bytes(data[: len(data) // 2])
    code, out, err = run(name, memory)
    told_as_damage = name != "info" and file.startswith("e0")
    assert code == (0 if told_as_damage and name == "repair" else 3)
    assert told_as_damage == (err == "")
    assert told_as_damage or (out == "" and file in err and _is_a_line(err))


@pytest.mark.parametrize("words", ["--help", "check MEMORY", "info MEMORY --json"])
def test_a_command_whose_output_is_closed_does_its_work(memory, words):
    words = [str(memory) if word == "MEMORY" else word for word in words.split()]
    closing = ["bash", "-c", 'exec "$@" >&-', "bash"]
    done = subprocess.run([*closing, *START, *words], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_options_of_all_commands_may_stand_before_the_command(run, memory):
    assert run("--json", "info", memory) == run("info", memory, "--json")


class OutOfMemoryError(RuntimeError):
    """As torch has one."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: no room is left on the disk"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied"),
        (OSError("cannot be\n  found"), "cannot be found"),
        (MemoryError(), "not enough memory"),
        (OutOfMemoryError("CUDA out of memory.\nTried 2 GiB"), "not enough memory: CUDA out of memory. Tried 2 GiB"),
    ],
    ids=repr,
)
def test_what_the_machine_lacks_ends_with_1(run, monkeypatch, error, told):
    monkeypatch.setattr("exmem.cli.info.ExemplarMemory.open", raising(error))
    assert run("info", "memory") == (1, "", f"exmem: {told}\n")


@pytest.mark.parametrize(
    "error",
    [ValueError("a\nb"), RuntimeError("a b"), KeyError("a"), AssertionError(), RecursionError("deep")],
    ids=repr,
)
def test_a_fault_ends_with_70_and_one_line_with_its_type(run, monkeypatch, error):
    monkeypatch.setattr("exmem.cli.info.ExemplarMemory.open", raising(error))
    code, out, err = run("info", "memory", "--json")
    assert (code, out) == (70, "")
    what = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    place = rf"{re.escape(__file__)}, line \d+"  # where it was raised
    assert re.fullmatch(rf"exmem: a fault: {re.escape(what)} \({place}\); run it with --debug for the traceback\n", err)


@pytest.mark.parametrize("error", [ValueError("it"), KeyboardInterrupt(), OSError(errno.ENOSPC, "it")], ids=repr)
def test_debug_shows_the_traceback_wherever_it_stands_and_the_same_line_and_code(run, monkeypatch, error):
    monkeypatch.setattr("exmem.cli.info.ExemplarMemory.open", raising(error))
    code, _, line = run("info", "memory")
    assert "Traceback" not in line
    for words in (["--debug", "info", "memory"], ["info", "--debug", "memory"], ["info", "memory", "--debug"]):
        found, _, err = run(*words)
        assert found == code
        assert err.startswith("Traceback (most recent call last):\n")
        assert "in opened\n" in err
        assert err.endswith(line)
    monkeypatch.setenv("EXMEM_DEBUG", "1")
    assert "Traceback" in run("info", "memory")[2]
    monkeypatch.setenv("EXMEM_DEBUG", "0")
    assert run("info", "memory")[2] == line


def test_debug_shows_where_a_wrong_word_was_refused(run):
    err = run("import", "a", "b", "--max-bytes", "c", "--debug")[2]
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("exmem: ")


def test_debug_behind_two_dashes_is_a_name(tmp_path, run):
    code, _, err = run("info", "--", "--debug")
    assert code == 1
    assert "--debug holds no exmem store" in err
