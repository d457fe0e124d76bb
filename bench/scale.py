"""How latency, RAM and opening grow from 10^3 to 10^6 exemplars (384 float16 features each).

Run `python -m bench.scale` (about a gigabyte of disk, minutes); `--most 5` stops at 10^5.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.timing import resident_bytes
from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec

WIDTH, STEP = 384, 1000
SCHEMA = Schema({"features": TokenSpec(positions=1, shape=(WIDTH,), dtype="float16", codec="raw")})


def exemplars(first: int, count: int) -> list[Exemplar]:
    values = np.random.default_rng(first).normal(size=(count, 1, 1, WIDTH)).astype(np.float16)
    values[:, 0, 0, 0] = np.arange(first, first + count) % 1000  # so that a reader can tell what it reads
    return [
        Exemplar({"features": TokenSet.dense(values[row, 0])}, label=(first + row) % 100, priority=-first - row)
        for row in range(count)
    ]


def reading(folder: Path) -> dict[str, float]:
    """In a process of its own, so that RAM is the reader's alone."""
    before = resident_bytes()
    start = time.perf_counter()
    memory = ExemplarMemory.open(folder, threads=2)
    opened = time.perf_counter() - start
    held = resident_bytes() - before
    rng = np.random.default_rng(0)
    slots = memory.slots
    times = []
    for _ in range(300):
        picks = rng.choice(slots, 64)
        start = time.perf_counter()
        batch = memory.read(picks)
        times.append(time.perf_counter() - start)
        np.testing.assert_array_equal(batch.tokens["features"].values[:, 0, 0], picks % 1000)
    return {
        "open_s": opened,
        "ram_bytes_an_exemplar": held / len(memory),
        "batch_us": 1e6 * statistics.median(times[100:]),
    }


def changing(folder: Path) -> dict[str, float]:
    """Median seconds of add + commit and of evict, 10 exemplars each; what is evicted was not there before."""
    before = resident_bytes()
    with ExemplarMemory.open(folder, mode="r+", durable=False, threads=2) as memory:
        held = resident_bytes() - before
        adds, evictions = [], []
        for turn in range(15):
            new = exemplars(10**7 + 10 * turn, 10)
            start = time.perf_counter()
            slots = memory.add(new).slots
            memory.commit()
            adds.append(time.perf_counter() - start)
            start = time.perf_counter()
            memory.evict(slots)
            evictions.append(time.perf_counter() - start)
        return {
            "add_ms": 1e3 * statistics.median(adds[3:]),
            "evict_ms": 1e3 * statistics.median(evictions[3:]),
            "writer_ram_bytes_an_exemplar": held / len(memory),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=6, help="power of ten of the largest memory")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--change", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read or arguments.change:
        print(json.dumps(reading(arguments.read) if arguments.read else changing(arguments.change)))
        return
    print("exemplars  bulk add/s  batch of 64 us  open s  RAM B/ex reader  writer  add 10 ms  evict 10 ms  overhead %")
    with tempfile.TemporaryDirectory() as root:
        for power in range(3, arguments.most + 1):
            folder, count = Path(root) / f"m{power}", 10**power
            start = time.perf_counter()
            with ExemplarMemory.create(folder, schema=SCHEMA, max_bytes="4GB", durable=False, threads=2) as memory:
                for first in range(0, count, STEP):
                    memory.add(exemplars(first, STEP))
            rate = count / (time.perf_counter() - start)
            found: dict[str, float] = {}
            for option in ("--read", "--change"):
                command = [sys.executable, "-m", "bench.scale", option, str(folder)]
                found |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            print(
                f"{count:9,}  {rate:10,.0f}  {found['batch_us']:14,.0f}  {found['open_s']:6.3f}  "
                f"{found['ram_bytes_an_exemplar']:15,.0f}  {found['writer_ram_bytes_an_exemplar']:6,.0f}  "
                f"{found['add_ms']:9.2f}  {found['evict_ms']:11.2f}  {100 * (total / (count * 2 * WIDTH) - 1):10.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
