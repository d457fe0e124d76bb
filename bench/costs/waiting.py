"""How much of a training step waits for replay: step times x delays of the object store x ways to read."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.costs.server import remote
from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.replay import replay_loader
from exmem.store.mirror import mirror

__all__ = ["WAYS", "print_waiting", "waited"]

BYTES, BATCH = 1024, 64
SCHEMA = Schema({"image": TokenSpec(positions=1, shape=(BYTES,), dtype="uint8", codec="raw")})
STEPS_S, DELAYS_S = (0.005, 0.02, 0.1), (0.0, 0.005, 0.02, 0.05)
WAYS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "2 workers, prefetch 2": {"num_workers": 2},
    "4 workers, prefetch 8": {"num_workers": 4, "prefetch_factor": 8},
    "mirror": {},
    "mirror, 2 workers": {"num_workers": 2},
}
_WARM = 60  # batches that are not counted: workers start, caches fill


def fill(place: Any, count: int) -> None:
    """A memory of exemplars of a kilobyte, as masked patches or half-size JPEG take."""
    rng = np.random.default_rng(0)
    with ExemplarMemory.create(place, schema=SCHEMA, max_bytes="256MB", threads=2) as memory:
        for first in range(0, count, 1000):
            values = rng.integers(0, 256, (1000, 1, BYTES)).astype(np.uint8)
            memory.add(
                [Exemplar({"image": TokenSet.dense(one)}, label=(first + at) % 100) for at, one in enumerate(values)]
            )


def waited(batches: Iterator[Any], *, step_s: float, steps: int) -> float:
    """Return the share of the time that is spent waiting for the next batch; the step runs elsewhere, on a device."""
    waits, begun = 0.0, time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        next(batches)
        waits += time.perf_counter() - start
        time.sleep(step_s)
    return waits / (time.perf_counter() - begun)


def print_waiting(ways: Sequence[str], count: int = 100_000) -> None:
    """Print a table: a row a way (of `WAYS`; all when none is given) and delay, a column a step time."""
    print(f"| way | delay | {' | '.join(f'step of {1e3 * step:.0f} ms' for step in STEPS_S)} | processor, a batch |")
    print("| --- | ---: | ---: " + "| ---: " * len(STEPS_S) + "|")
    with remote() as server, tempfile.TemporaryDirectory() as folder:
        store = server.store("waiting")
        fill(store, count)
        for way, delay_s in itertools.product(ways or WAYS, DELAYS_S):
            server.set(latency_s=delay_s)
            place: Any = store
            if way.startswith("mirror"):
                start = time.perf_counter()
                place = Path(folder) / f"{delay_s}"
                fetched = mirror(store, place)
                way = f"{way} (made in {time.perf_counter() - start:.1f} s, {fetched:,} objects)"
            loader = replay_loader(place, batch=BATCH, endless=True, **WAYS[way.partition(" (")[0]])
            batches = iter(loader)
            for _ in range(_WARM):
                next(batches)
            steps, begun = [round(max(30, 2 / step_s)) for step_s in STEPS_S], time.process_time()
            shares = [waited(batches, step_s=one, steps=number) for one, number in zip(STEPS_S, steps, strict=True)]
            busy_ms = 1e3 * (time.process_time() - begun) / sum(steps)  # of this process
            del loader, batches
            told = " | ".join(f"{100 * share:.1f} %" for share in shares)
            print(f"| {way} | {1e3 * delay_s:.0f} ms | {told} | {busy_ms:.1f} ms |", flush=True)
