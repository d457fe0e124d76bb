"""Fresh environments with a wheel in them, from the package index that pip is set to."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.packaging.building import ROOT

__all__ = ["TORCH", "Environment", "lower_bounds", "pinned"]


class Environment:
    """An environment of its own in a folder, which sees the packages in other folders beside its own.

    What is there is not installed again, so a program lies where its package does.
    """

    def __init__(self, folder: Path, *, python: str | Path = sys.executable, on: Iterable[Path] = ()) -> None:
        self.folder = folder
        _run([python, "-m", "venv", folder], cwd=folder.parent)
        self.python = folder / "bin" / "python"
        (self.packages,) = folder.glob("lib/python*/site-packages")
        (self.packages / "others.pth").write_text("".join(f"{packages}\n" for packages in on))

    def install(self, *what: str, constraints: Iterable[str] = ()) -> None:
        file = self.folder / "constraints.txt"
        file.write_text("".join(f"{line}\n" for line in constraints))
        self.run("-m", "pip", "install", "--quiet", "--constraint", file, *what, cwd=self.folder)

    def run(self, *words: str | Path, cwd: Path) -> str:
        """Run Python, without anything that leads to these sources; return what it printed."""
        return _run([self.python, *words], cwd=cwd)

    def program(self, name: str, *words: str | Path, cwd: Path) -> str:
        """Run a program that a package installed, as a shell does."""
        return _run([self.folder / "bin" / name, *words], cwd=cwd)


def _run(command: list[str | Path], *, cwd: Path) -> str:
    ours = ("PYTHON", "PYTEST", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pinned(name: str) -> str:
    """Return the line of a package in `requirements-dev.txt`."""
    return re.search(rf"^{name}==.*$", (ROOT / "requirements-dev.txt").read_text(encoding="utf-8"), re.MULTILINE)[0]


TORCH = pinned("torch")
"""With this in place no package asks for another build of torch, which may be very large."""


def lower_bounds(*extras: str) -> list[str]:
    """The oldest versions that the dependencies of the core and of some extras allow; torch is the pinned one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    bounds = dict(re.match(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", one).groups() for one in listed if ">=" in one)
    return [TORCH if name == "torch" else f"{name}=={version}" for name, version in bounds.items()]
