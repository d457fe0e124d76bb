"""The wheel and the source distribution, built from a folder without a network."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["EPOCH", "ROOT", "Built", "build"]

ROOT = Path(__file__).parents[2]
EPOCH = 1_700_000_000  # 2023-11-14 22:13:20 UTC, the time that all files in an archive get


class Built(NamedTuple):
    wheel: Path
    sdist: Path


def build(source: Path, out: Path, *, umask: int = 0o022, python: str | Path = sys.executable) -> Built:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    command = [python, "-m", "build", "--no-isolation", "--outdir", out, source]
    done = subprocess.run(command, env=environment, umask=umask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, sdist)
