"""mammoth's own tests and checkpoints with our buffer in the place of its own.

What is run: its tests of ER, DER, iCaRL, GDumb and X-DER, and the checkpoints of DER++. Of its tests that use a buffer
these do not apply: TwF stores attention maps and writes into them; GSS and LWS have buffers of their own;
`test_scheduler` takes 2,500 steps, and what it asserts of a checkpoint's buffer is asserted here; HAL sets and reads
`task_number`, which mammoth's buffer lacks, too. mammoth has no test of its buffer alone.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations.peers.environment import peer_source

ROOT = Path(__file__).parents[3]
MAMMOTH = peer_source("mammoth")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        MAMMOTH is None or importlib.util.find_spec("torchvision") is None,
        reason="needs a folder in EXMEM_PEERS with a clone of https://github.com/aimagelab/mammoth, and what its "
        "requirements.txt names",
    ),
]

TESTS = [
    "test_er_example.py::test_er[seq-cifar10]",
    "test_er_example.py::test_er[seq-mnist]",
    "test_der_example.py",
    "test_icarl.py",
    "test_gdumb.py",
    "test_xder.py",
    "test_checkpointing.py::test_checkpointing_replay",
]
FIRST = {TESTS[0], "test_icarl.py"}  # the others with --full, each takes minutes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, for mammoth writes checkpoints and results into the folder of its source."""
    assert MAMMOTH is not None
    copied = tmp_path_factory.mktemp("peers") / "mammoth"
    shutil.copytree(MAMMOTH, copied, ignore=shutil.ignore_patterns(".git", "docs", "data", "checkpoints"))
    return copied


def _run(source: Path, arguments: list[str], folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    given = {
        "EXMEM_PEERS": str(source.parent),
        "EXMEM_MAMMOTH": str(folder / "made.json"),
        "EXMEM_BUFFER": json.dumps(options),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MAMMOTH_TEST": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.one_in(20)) for name in TESTS]
)
def test_a_test_of_mammoth_passes_with_our_buffer(name: str, source: Path, tmp_path: Path) -> None:
    plugin = "tests.integrations.peers.mammoth_peer"
    options = ["-c", os.devnull, f"--rootdir={tmp_path}", "-p", "no:cacheprovider", "-p", plugin, "-q"]
    done = _run(source, ["-m", "pytest", *options, f"{source}/tests/{name}"], tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    made = json.loads((tmp_path / "made.json").read_text())
    assert made
    assert all(0 < held <= most for held, _, most in made)


@pytest.mark.parametrize("mode", ["safe", "old_pickle"])
def test_checkpoints_come_back_exactly_through_functions_of_mammoth(mode: str, source: Path, tmp_path: Path) -> None:
    done = _run(source, ["-m", "tests.integrations.peers.mammoth_checkpoint", mode], tmp_path, recipe="jpeg")
    assert done.returncode == 0, done.stderr[-3000:]
