"""What numbers were measured with: versions, the commit of exmem, the machine, and the peak of RAM."""

import contextlib
import functools
import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import exmem

__all__ = ["cores", "described", "peak_ram_bytes", "reset_peak_ram"]

_PACKAGES = ("torch", "zarr", "numpy", "transformers")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def described() -> dict[str, Any]:
    """Return versions as one line and one by one, and the machine; its name is no part of it."""
    import torch

    versions = {"exmem": exmem.__version__, "commit": _commit(), "python": platform.python_version()}
    versions |= {name: version(name) for name in _PACKAGES}
    line = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {"system": platform.system(), "machine": platform.machine(), "cores": cores(), "accelerator": accelerator}
    return {"versions": line, "packages": versions, "machine": machine}


def _commit() -> str | None:
    """Return the commit of a checkout that exmem runs from, `+` behind it where files of exmem differ; else None."""
    package = Path(exmem.__file__).parent
    try:
        known = _git(package, "ls-files", "__init__.py")  # else it lies in a repository of something else
        commit = _git(package, "rev-parse", "--short=12", "HEAD") if known else ""
        return f"{commit}+" if commit and _git(package, "status", "--porcelain", ".") else commit or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def reset_peak_ram() -> None:
    """Forget the peak of before, where the system can (Linux): a process runs many jobs."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_ram_bytes() -> int:
    """Return the peak of RAM of this process since `reset_peak_ram`, or since it began where that is not known.

    It holds what a worker keeps between jobs: the backbone, and what its trunk made of the data.
    """
    with contextlib.suppress(OSError):
        if peak := re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return 1024 * int(peak[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
