"""A memory of 10^3 to 10^6 exemplars on an object store, beside what the model says of it; then 10^7 and 10^8."""

import ctypes
import dataclasses
import functools
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bench.costs import model
from bench.costs.model import Cost, Memory, Place
from bench.costs.server import Remote, remote
from bench.timing import resident_bytes
from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec

__all__ = ["Row", "check", "extrapolate", "fill", "print_rows", "shape_of"]

WIDTH, STEP, BATCH = 64, 1000, 64
SCHEMA = Schema({"features": TokenSpec(positions=1, shape=(WIDTH,), dtype="float16", codec="raw")})
LATENCY_S, LINK_BYTES_S = 0.02, 125e6  # 20 ms a request, 1 Gbit/s
_KINDS = ("get", "put", "list", "delete")


class Row(NamedTuple):
    """An operation, as the model has it and as it was measured."""

    exemplars: int
    what: str
    model: Cost
    requests: int
    num_bytes: int
    model_s: float
    seconds: float

    @property
    def model_bytes(self) -> float:
        return self.model.get_bytes + self.model.put_bytes + self.model.list_bytes


def exemplars(first: int, count: int) -> list[Exemplar]:
    """Features of 128 bytes, 100 classes, random priorities; the first value tells which it is."""
    rng = np.random.default_rng(first)
    values = rng.normal(size=(count, 1, WIDTH)).astype(np.float16)
    values[:, 0, 0] = np.arange(first, first + count) % 1000
    labels, priorities = rng.integers(100, size=count), rng.random(count)
    return [
        Exemplar({"features": TokenSet.dense(values[row])}, label=int(labels[row]), priority=float(priorities[row]))
        for row in range(count)
    ]


def fill(place: Any, count: int) -> None:
    """Make a memory of so many exemplars."""
    with ExemplarMemory.create(place, schema=SCHEMA, max_bytes="4GB", threads=2) as memory:
        for first in range(0, count, STEP):
            memory.add(exemplars(first, min(STEP, count - first)))


def shape_of(count: int) -> Memory:
    """What the model has to know of such a memory."""
    return Memory(exemplars=count, payload_bytes=2 * WIDTH, rows=256)


def calibrated(server: Remote) -> Place:
    """Measure what requests take without any latency."""
    objects = ExemplarMemory.open(server.store("calibration"))._store._objects
    keys = [f"e0/features/c.{segment}.0.0" for segment in range(3)]
    alone, together = [], []
    for _ in range(30):
        start = time.perf_counter()
        objects.view(keys[0])
        alone.append(time.perf_counter() - start)
        start = time.perf_counter()
        objects.views(keys * 85)
        together.append((time.perf_counter() - start) / 255)
    one = statistics.median(together)
    return Place(latency_s=0, trip_s=max(0.0, statistics.median(alone) - one), request_s=one, segment_s=1.5e-4)


def measure(server: Remote, name: str, count: int) -> dict[str, Any]:
    """Open, read and refresh: in a process of its own, so that RAM is the reader's alone."""
    command = [sys.executable, "-m", "bench.costs.check", server.address, name, str(count)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def _timed(server: Remote, work: Callable[[], object]) -> tuple[int, int, float]:
    """Requests, bytes and seconds of some work."""
    server.counted()
    start = time.perf_counter()
    work()
    taken = time.perf_counter() - start
    return *_counts(server.counted()), taken


def _counts(counted: Counter[str]) -> tuple[int, int]:
    return sum(counted[kind] for kind in _KINDS), sum(counted[f"{kind}_bytes"] for kind in _KINDS)


def _reading(server: Remote, name: str, count: int) -> dict[str, Any]:
    store, memories = server.store(name), list[ExemplarMemory]()
    ExemplarMemory.open(server.store("calibration")).close()  # what the client itself takes is there
    before = resident_bytes()
    found: dict[str, Any] = {"open": _timed(server, lambda: memories.append(ExemplarMemory.open(store, threads=1)))}
    memory = memories[0]
    ctypes.CDLL(None).malloc_trim(0)
    found["ram"] = (resident_bytes() - before) / count
    slots, rng, reads = memory.slots, np.random.default_rng(0), []
    for _ in range(20):
        picks = rng.choice(slots, BATCH, replace=False)
        memory._store.reader.mapped.clear()  # a cold cache, each time
        batches: list[Any] = []
        reads.append(_timed(server, functools.partial(_read_into, batches, memory, picks)))
        np.testing.assert_array_equal(batches[0].tokens["features"].values[:, 0, 0], picks % 1000)
    found["read"] = [statistics.mean(column) for column in zip(*reads, strict=True)]
    found["unchanged"] = _timed(server, memory.refresh)
    return found


def _read_into(batches: list[Any], memory: ExemplarMemory, picks: Any) -> None:
    batches.append(memory.read(picks))


def _changing(server: Remote, name: str, count: int) -> dict[str, tuple[int, int, float]]:
    """What a writer asks for: opening, commits of ten exemplars and of a thousand, an eviction."""
    writers: list[ExemplarMemory] = []
    found = {"open r+": _timed(server, lambda: writers.append(ExemplarMemory.open(server.store(name), mode="r+")))}
    with writers[0] as memory:
        memory.add(exemplars(count, 10))
        memory.commit()  # the first one reads the open segment
        new, many = exemplars(count + 10, 10), exemplars(count + 20, STEP)
        found["commit 10"] = _timed(server, lambda: (memory.add(new), memory.commit()))
        found["commit 1,000"] = _timed(server, lambda: (memory.add(many), memory.commit()))
        found["evict 10"] = _timed(server, lambda: memory.evict(memory.slots[-10:]))
    return found


def check(most: int, *, latency_s: float = LATENCY_S, link_bytes_s: float = LINK_BYTES_S) -> tuple[list[Row], Place]:
    """Measure memories of 10^3 to 10^most exemplars; return a row an operation, and what the place is like."""
    rows: list[Row] = []
    with remote() as server:
        fill(server.store("calibration"), STEP)
        place = dataclasses.replace(calibrated(server), latency_s=latency_s, link_bytes_s=link_bytes_s)
        for power in range(3, most + 1):
            count, name = 10**power, f"m{power}"
            fill(server.store(name), count)
            server.set(latency_s=latency_s, link_bytes_s=link_bytes_s)
            memory, found = shape_of(count), measure(server, name, count)
            ram = found.pop("ram")
            open_rows = (count + 10) % memory.rows
            costs = {
                "open": model.open_reader(memory),
                "read": model.read(memory, BATCH),
                "unchanged": model.refresh(memory, changed=False),
                "open r+": model.open_writer(memory),
                "commit 10": model.commit(memory, 10, open_rows=open_rows),
                "commit 1,000": model.commit(memory, STEP, open_rows=(open_rows + 10) % memory.rows),
                "evict 10": model.evict(memory),
            }
            found |= _changing(server, name, count)
            server.set()
            for what, cost in costs.items():
                requests, num_bytes, taken = found[what]
                rows.append(Row(count, what, cost, requests, num_bytes, model.seconds(cost, place), taken))
            rows.append(Row(count, "RAM a reader", Cost(), 0, 0, model.ram_bytes(memory) / count, ram))
    return rows, place


def print_rows(rows: list[Row]) -> None:
    """Print a table in Markdown."""
    print(
        "| exemplars | operation | requests, model / measured | bytes, model / measured | seconds, model / measured |"
    )
    print("| ---: | --- | ---: | ---: | ---: |")
    for row in rows:
        if row.what.startswith("RAM"):
            print(
                f"| {row.exemplars:,} | {row.what}, bytes an exemplar | | {row.model_s:,.0f} / {row.seconds:,.0f} | |"
            )
            continue
        print(
            f"| {row.exemplars:,} | {row.what} | {row.model.requests:,.1f} / {row.requests:,.1f} "
            f"| {row.model_bytes:,.0f} / {row.num_bytes:,.0f} ({_off(row.model_bytes, row.num_bytes)}) "
            f"| {row.model_s:.3f} / {row.seconds:.3f} ({_off(row.model_s, row.seconds)}) |"
        )


def _off(told: float, found: float) -> str:
    return f"{100 * (told / found - 1):+.0f} %"


def extrapolate(place: Place, *, payload_bytes: int) -> None:
    """Print what the model says of 10^6 to 10^8 exemplars."""
    latency_ms, link = 1e3 * place.latency_s, place.link_bytes_s / 1e6
    print(f"Exemplars of {payload_bytes:,} bytes, {latency_ms:.0f} ms a request, {link:,.0f} MB/s:")
    columns = ["exemplars", "segments", "open, s", "open r+, s", "batch of 64, cold: MB, s", "commit 10, s"]
    print(f"| {' | '.join([*columns, 'document', 'RAM, while it opens'])} |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for power in range(5, 9):
        rows = min(256, 1 << int(2**18 // (payload_bytes + 85)).bit_length() - 1)
        memory = Memory(exemplars=10**power, payload_bytes=payload_bytes, rows=rows)
        batch, commit = model.read(memory, BATCH), model.commit(memory, 10, open_rows=rows // 2)
        times = [model.seconds(cost, place) for cost in (model.open_reader(memory), model.open_writer(memory))]
        print(
            f"| {memory.exemplars:,} | {memory.segments:,} | {times[0]:,.1f} | {times[1]:,.1f} "
            f"| {batch.get_bytes / 1e6:.1f}, {model.seconds(batch, place):.2f} | {model.seconds(commit, place):.2f} "
            f"| {memory.document_bytes / 1e3:,.1f} kB "
            f"| {model.ram_bytes(memory) / 1e9:.2f} GB, {model.peak_ram_bytes(memory) / 1e9:.1f} GB |"
        )


if __name__ == "__main__":
    print(json.dumps(_reading(Remote(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
