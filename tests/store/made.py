"""Small exemplars and full memories for tests of the store."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from tests.exemplars import folder_bytes

QUICK: dict[str, Any] = {"threads": 1, "durable": False}

TEXT = Schema({"text": TokenSpec(positions=8, dtype="uint8")})
NUMBERS = Schema({"t": TokenSpec(positions=4, dtype="int32")}, {"e": ExtraSpec(dtype="int32")})
BLOBS = Schema({"image": TokenSpec(positions=4096, shape=(16,), dtype="uint8", codec="raw")})
VECTORS = Schema({"f": TokenSpec(positions=1, shape=(16,), dtype="float32", codec="int8")})


def text(number: int, *, label: int = 0, priority: float = 0.0) -> Exemplar:
    """About 20 bytes: eight of noise that follow from the number (SplitMix64), and what is known of it."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & 2**64 - 1
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 2**64 - 1
    noise = np.frombuffer((mixed ^ mixed >> 27).to_bytes(8, "little"), np.uint8)
    return Exemplar({"text": TokenSet.dense(noise)}, label=label, priority=priority)


def numbered(number: int, *, label: int = 0, priority: float = 0.0) -> Exemplar:
    """An exemplar that says its number in its tokens and in its extra."""
    values = np.full(4, 100 + number, np.int32)
    return Exemplar({"t": TokenSet.dense(values)}, label=label, priority=priority, extras={"e": np.int32(number)})


def blob(nbytes: int, *, seed: int = 0, label: int = 0, priority: float = 0.0) -> Exemplar:
    """An exemplar of about so many bytes of noise, a multiple of 16."""
    count = nbytes // 16
    values = np.random.default_rng(seed).integers(0, 256, (count, 16)).astype(np.uint8)
    return Exemplar({"image": TokenSet(np.arange(count), values)}, label=label, priority=priority)


def vectors(count: int, *, seed: int = 0, labels: int = 10) -> list[Exemplar]:
    """Exemplars of one feature vector each, with random priorities."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, 1, 16)).astype(np.float32)
    return [
        Exemplar({"f": TokenSet([0], value)}, label=number % labels, priority=float(rng.random()))
        for number, value in enumerate(values)
    ]


def fill(memory: ExemplarMemory, batches: Iterable[list[Exemplar]]) -> None:
    """Add and commit batches until something has to go."""
    for batch in batches:
        report = memory.add(batch)
        memory.commit()
        if len(report.evicted) or (report.slots < 0).any():
            return
    raise AssertionError("the memory did not get full")


def full(
    folder: Path, schema: Schema, make: Callable[[int], Exemplar], *, max_bytes: int, batch: int = 50, **options: Any
) -> ExemplarMemory:
    """Make a memory and fill it to the brim with exemplars of rising number."""
    memory = ExemplarMemory.create(folder, schema=schema, max_bytes=max_bytes, **QUICK, **options)
    starts = range(0, 10**7, batch)
    fill(memory, ([make(start + number) for number in range(batch)] for start in starts))
    return memory


def contents(memory: ExemplarMemory) -> dict[int, tuple[Any, ...]]:
    """Everything that a memory holds, slot by slot, as plain values."""
    slots = memory.slots
    if not len(slots):
        return {}
    found = {}
    for slot, read in zip(slots.tolist(), memory.read(slots), strict=True):
        tokens = {name: (own.positions.tolist(), own.values.tobytes()) for name, own in sorted(read.tokens.items())}
        extras = {name: np.asarray(value).tobytes() for name, value in sorted(read.extras.items())}
        found[slot] = (read.label, read.priority, tokens, extras)
    return found


def limit_of(memory: ExemplarMemory) -> int:
    return memory.max_bytes - sum(memory.charges.values())


def assert_within(memory: ExemplarMemory, folder: Path) -> None:
    """The files keep the budget, and the memory knows their bytes."""
    files = folder_bytes(folder)
    assert files <= limit_of(memory)
    assert memory.used_bytes == files + sum(memory.charges.values())


def segment_files(folder: Path) -> list[Path]:
    """Every file that is no JSON document: chunks and shards, largest first."""
    paths = [Path(place, name) for place, _, names in os.walk(folder) for name in names if name != "zarr.json"]
    return sorted(paths, key=lambda path: (-path.stat().st_size, path))
