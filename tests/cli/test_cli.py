"""The command line, run as a user runs it."""

import json
import subprocess
import sys

import pytest

import exmem
from exmem import ExemplarMemory
from tests.exemplars import exemplar, schema


def run(*arguments):
    script = "from exmem.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)


def test_info_tells_what_a_memory_holds(tmp_path):
    with ExemplarMemory.create(tmp_path / "memory", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(seed, label=seed % 2) for seed in range(5)])
    found = run("info", str(tmp_path / "memory"), "--json")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert (told["exemplars"], told["max_bytes"]) == (5, 100_000)
    assert {label: held["exemplars"] for label, held in told["classes"].items()} == {"0": 3, "1": 2}
    assert told["quota"] == {"unit": "bytes", "weights": {}}
    assert "image: 16 positions" in run("info", str(tmp_path / "memory")).stdout


def test_info_tells_the_quota_and_the_weights(tmp_path):
    with ExemplarMemory.create(tmp_path / "memory", schema=schema(), max_bytes="100kB", quota="counts") as memory:
        memory.weigh({1: 2.5})
        memory.add([exemplar(seed, label=seed % 2) for seed in range(5)])
        expected = {str(label): held.quota_bytes for label, held in memory.summary().items()}
    told = json.loads(run("info", str(tmp_path / "memory"), "--json").stdout)
    assert told["quota"] == {"unit": "counts", "weights": {"1": 2.5}}
    assert {label: held["weight"] for label, held in told["classes"].items()} == {"0": 1.0, "1": 2.5}
    assert {label: held["quota_bytes"] for label, held in told["classes"].items()} == expected
    table = run("info", str(tmp_path / "memory")).stdout
    assert "quota counts" in table.replace("\n", " ")
    assert "2.5" in table


def test_the_package_runs_as_a_module_and_tells_its_version(tmp_path):
    for start in (["-m", "exmem"], ["-c", "from exmem.cli.main import main; main()"]):
        found = subprocess.run([sys.executable, *start, "--version"], capture_output=True, text=True, check=True)
        assert found.stdout == f"exmem {exmem.__version__}\n"
    command = [sys.executable, "-m", "exmem", "info", str(tmp_path / "nothing")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr.startswith("exmem: ")) == (1, True)


def test_an_error_is_one_line_and_a_failing_exit_code(tmp_path):
    found = run("info", str(tmp_path / "nothing"))
    assert found.returncode == 1
    assert found.stderr.startswith("exmem: ")
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "arguments", [["demo"], ["train", "data", "--out", "run", "--first-classes", "1", "--increments", "1"]]
)
def test_a_missing_package_is_named_with_the_remedy(arguments, tmp_path):
    script = "import sys; sys.modules['transformers'] = None; from exmem.cli.main import main; main()"
    command = [sys.executable, "-c", script, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == 1
    assert found.stderr == "exmem: this needs the package transformers; pip install 'exmem[train,demo]'\n"


@pytest.mark.parametrize("rest", [[], ["--help"], ["memory", "--json"]])
def test_an_unknown_command_is_an_error_and_names_those_that_are_known(rest):
    found = run("nonsense", *rest)
    assert found.returncode == 2
    assert found.stderr.startswith("exmem: unknown command 'nonsense'; it is one of info, show,")
    assert found.stderr.count("\n") == 1
