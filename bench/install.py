"""What the core takes: `python -m bench.install` installs its wheel in a fresh environment, and imports it there.

The size is that of all files, compiled ones too. An import is a whole process; it takes turns with one that imports
nothing and one that imports NumPy, and what is told is the median, with and without the process itself.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from exmem import format_bytes

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
STATEMENTS = ("pass", "import numpy", "import exmem", "from exmem import ExemplarMemory")
# Of this process since it was started as Python; `getrusage` tells what its parent had, too.
PEAK = "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"


def run(*command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True).stdout


def installed(folder: Path) -> Path:
    """Make an environment with the wheel of these sources and its dependencies; return its packages."""
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "environment")
    run(sys.executable, "-m", "pip", "--python", folder / "environment", "install", "--quiet", wheel)
    (packages,) = folder.glob("environment/lib/python*/site-packages")
    return packages


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def imports(python: Path, rounds: int) -> dict[str, tuple[float, int]]:
    """Median seconds of a process and its peak of RAM in bytes, by statement."""
    seconds: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement in STATEMENTS:
            start = time.perf_counter()
            run(python, "-c", statement)
            seconds[statement].append(time.perf_counter() - start)
    return {
        statement: (statistics.median(times), 1024 * int(run(python, "-c", statement + PEAK)))
        for statement, times in seconds.items()
    }


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        packages = installed(Path(name))
        own, whole = format_bytes(size_of(packages / "exmem")), format_bytes(size_of(packages))
        print(f"exmem {own}, with its dependencies {whole}")
        largest = sorted(((size_of(path), path.name) for path in packages.iterdir() if path.is_dir()), reverse=True)
        print("largest:", ", ".join(f"{name} {format_bytes(size)}" for size, name in largest[:5]))
        found = imports(packages.parents[2] / "bin" / "python", rounds)
        bare = found["pass"][0]
        for statement, (seconds, peak) in found.items():
            print(
                f"{statement:34} {seconds:.3f} s, {seconds - bare:.3f} s more than nothing; {format_bytes(peak)} of RAM"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args().rounds)
