"""Schemas that have hurt a store, or could: each with a pool of exemplars and the budgets it is tried with."""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.codecs import ProductQuantisation
from exmem.errors import BudgetTooSmallError
from tests import exemplars

POOL = 48  # exemplars of a pool; a sequence adds each of them many times, with other labels and priorities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A schema, how one of its exemplars is made from a number, and how its memories are made.

    `room` says what a budget has beyond the least that a store of this schema needs, lowest and highest; `offer` how
    many exemplars are offered at once, at most.
    """

    name: str
    schema: Callable[[], Schema]
    make: Callable[[int], Exemplar]
    room: tuple[int, int]
    offer: int = 40
    labels: int = 5
    eviction: Literal["by_class", "by_priority"] = "by_class"
    quota: Literal["bytes", "counts"] = "bytes"
    max_exemplars: int | None = None

    def options(self) -> dict[str, Any]:
        """What `create` is called with beside the budget."""
        found: dict[str, Any] = {"schema": self.schema(), "eviction": self.eviction}
        if self.eviction == "by_class":
            found["quota"] = self.quota
        if self.max_exemplars is not None:
            found["max_exemplars"] = self.max_exemplars
        return found


@dataclasses.dataclass(frozen=True)
class Known:
    """What a pool is known to be: its exemplars, their bytes in a memory, and what is read of them first."""

    pool: list[Exemplar]
    sizes: list[int]
    first_reads: list[Exemplar]
    least_bytes: int  # the smallest budget that `create` takes


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng([19, seed])


def _text(seed: int) -> Exemplar:
    return Exemplar({"text": TokenSet.dense(np.full(8, seed % 7, np.uint8))}, label=0)


def _vector(seed: int) -> Exemplar:
    values = _random(seed).normal(size=(1, 16)).astype(np.float32)
    return Exemplar({"f": TokenSet([0], values)}, label=0)


def _vector_and_ones(seed: int) -> Exemplar:
    values = _random(seed).normal(size=(1, 64)).astype(np.float32)
    return Exemplar({"f": TokenSet([0], values)}, label=0, extras={f"e{i}": np.int16(1) for i in range(4)})


def _noise_in_extras(seed: int) -> Exemplar:
    rng = _random(seed)
    tokens = {"text": TokenSet.dense(rng.integers(0, 30_000, 6).astype(np.int32))}
    extras = {"embedding": rng.normal(size=24).astype(np.float32), "task": np.uint8(seed), "seen": bool(seed % 2)}
    return Exemplar(tokens, label=0, extras=extras)


def _zeros_in_extras(seed: int) -> Exemplar:
    logits = np.zeros(300, np.float16)
    logits[seed % 300] = 1 if seed % 16 else np.nan
    return Exemplar({"text": TokenSet([0], np.array([seed], np.uint8))}, label=0, extras={"logits": logits})


def _image_and_text(seed: int) -> Exemplar:
    return exemplars.exemplar(seed)


def _raw_pair(seed: int) -> Exemplar:
    rng = _random(seed)
    kept = np.sort(rng.choice(1000, 100, replace=False))
    image = rng.integers(0, 256, (1, 300)).astype(np.uint8)
    text = TokenSet(kept, np.arange(100, dtype=np.uint8))
    return Exemplar({"image": TokenSet([0], image), "text": text}, label=0)


def _noise_image(seed: int) -> Exemplar:
    rng = _random(seed)
    kept = np.sort(rng.choice(64, int(rng.integers(1, 65)), replace=False))
    return Exemplar({"image": TokenSet(kept, rng.integers(0, 256, (len(kept), 12)).astype(np.uint8))}, label=0)


def _bytes_of(count: int, seed: int) -> Exemplar:
    values = _random(seed).integers(0, 256, (count, 100)).astype(np.uint8)
    return Exemplar({"image": TokenSet(np.arange(count), values)}, label=0)


def _tiny_or_huge(seed: int) -> Exemplar:
    return _bytes_of(250 if seed % 8 == 3 else seed % 2, seed)  # 25 kB or next to nothing


def _drifting(seed: int) -> Exemplar:
    return _bytes_of(max(1, round(100 ** (seed / (POOL - 1)))), seed)  # 100 bytes .. 10 kB, in order of the pool


def _mostly_empty(seed: int) -> Exemplar:
    count = 3 if seed % 5 == 0 else 0
    values = _random(seed).integers(0, 99, (count, 2)).astype(np.int16)
    return Exemplar(
        {"a": TokenSet(np.arange(count), values), "b": TokenSet([], np.zeros(0, np.float16))},
        label=0,
        extras={"task": np.int8(seed)},
    )


def _hidden(seed: int) -> Exemplar:
    rng = _random(seed)
    kept = np.sort(rng.choice(50, 5, replace=False))
    hidden = TokenSet(kept, rng.normal(size=(5, 32)).astype(np.float32))
    return Exemplar({"hidden": hidden, "ids": TokenSet.dense(rng.integers(0, 9, 4).astype(np.int64))}, label=0)


@functools.cache
def _codebooks() -> dict[str, Any]:
    return ProductQuantisation.train(np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32), parts=2)


def _text_schema() -> Schema:
    return Schema({"text": TokenSpec(positions=8, dtype="uint8")})


def _image_of(positions: int, width: int, codec: str) -> Schema:
    return Schema({"image": TokenSpec(positions=positions, shape=(width,), dtype="uint8", codec=codec)})


def _features(width: int, codec: str | dict[str, Any], extras: int = 0) -> Schema:
    spec = TokenSpec(positions=1, shape=(width,), dtype="float32", codec=codec)
    return Schema({"f": spec}, {f"e{i}": ExtraSpec(dtype="int16") for i in range(extras)})


def _noise_schema() -> Schema:
    extras = {
        "embedding": ExtraSpec(shape=(24,), dtype="float32"),
        "task": ExtraSpec(dtype="uint8"),
        "seen": ExtraSpec(dtype="bool"),
    }
    return Schema({"text": TokenSpec(positions=6, dtype="int32", codec="raw")}, extras)


def _zeros_schema() -> Schema:
    return Schema({"text": TokenSpec(positions=1)}, {"logits": ExtraSpec(shape=(300,), dtype="float16")})


def _raw_schema() -> Schema:
    image = TokenSpec(positions=1, shape=(300,), dtype="uint8", codec="raw")
    return Schema({"image": image, "text": TokenSpec(positions=1000, dtype="uint8", codec="raw")})


def _empty_schema() -> Schema:
    modalities = {
        "a": TokenSpec(positions=9, shape=(2,), dtype="int16"),
        "b": TokenSpec(positions=3, dtype="float16", codec="raw"),
    }
    return Schema(modalities, {"task": ExtraSpec(dtype="int8")})


def _hidden_schema() -> Schema:
    hidden = TokenSpec(positions=50, shape=(32,), dtype="float32", codec="float16")
    return Schema({"hidden": hidden, "ids": TokenSpec(positions=4, dtype="int64", codec="raw")})


CASES = [
    Case(name="text", schema=_text_schema, make=_text, room=(3_000, 40_000), offer=300, labels=20),
    Case(
        name="text-counts", schema=_text_schema, make=_text, room=(2_000, 30_000), offer=200, labels=300, quota="counts"
    ),
    Case(
        name="stream",
        schema=lambda: _features(16, "int8"),
        make=_vector,
        room=(3_000, 60_000),
        offer=300,
        eviction="by_priority",
    ),
    Case(
        name="int8",
        schema=lambda: _features(64, "int8", extras=4),
        make=_vector_and_ones,
        room=(5_000, 80_000),
        offer=99,
        labels=10,
    ),
    Case(name="noisy-extras", schema=_noise_schema, make=_noise_in_extras, room=(4_000, 60_000), offer=80),
    Case(name="zero-extras", schema=_zeros_schema, make=_zeros_in_extras, room=(6_000, 60_000), offer=60),
    Case(
        name="jpeg",
        schema=lambda: exemplars.schema("patch_jpeg"),
        make=_image_and_text,
        room=(10_000, 60_000),
        offer=12,
        labels=4,
    ),
    Case(name="lossless", schema=lambda: exemplars.schema("lossless"), make=_image_and_text, room=(30_000, 120_000)),
    Case(name="raw-pair", schema=_raw_schema, make=_raw_pair, room=(5_000, 60_000), labels=3),
    Case(name="noise", schema=lambda: _image_of(64, 12, "lossless"), make=_noise_image, room=(5_000, 60_000)),
    Case(
        name="tiny-and-huge",
        schema=lambda: _image_of(300, 100, "raw"),
        make=_tiny_or_huge,
        room=(60_000, 150_000),
        offer=60,
    ),
    Case(
        name="tiny-and-huge-stream",
        schema=lambda: _image_of(300, 100, "raw"),
        make=_tiny_or_huge,
        room=(60_000, 90_000),
        offer=30,
        eviction="by_priority",
    ),
    Case(name="drift", schema=lambda: _image_of(100, 100, "raw"), make=_drifting, room=(25_000, 120_000), offer=30),
    Case(name="empty", schema=_empty_schema, make=_mostly_empty, room=(3_000, 30_000), offer=150, quota="counts"),
    Case(
        name="hidden",
        schema=_hidden_schema,
        make=_hidden,
        room=(6_000, 50_000),
        offer=50,
        quota="counts",
        max_exemplars=70,
    ),
    Case(name="pq", schema=lambda: _features(8, _codebooks()), make=lambda seed: _pq(seed), room=(4_000, 30_000)),
]


def _pq(seed: int) -> Exemplar:
    return Exemplar({"f": TokenSet([0], _random(seed).normal(size=(1, 8)).astype(np.float32))}, label=0)


def case_named(name: str) -> Case:
    """Return a case by its name."""
    return {case.name: case for case in CASES}[name]


@functools.cache
def known(name: str) -> Known:
    """Make the pool of a case, and measure it once in a memory with room for everything."""
    case = case_named(name)
    pool = [case.make(seed) for seed in range(POOL)]
    folder = Path(tempfile.mkdtemp(prefix="exmem-known-"))
    try:
        options = case.options() | {"max_exemplars": None}
        with ExemplarMemory.create(folder / "m", max_bytes=10**8, durable=False, threads=1, **options) as memory:
            slots = memory.add(pool).slots
            memory.commit()
            assert slots.tolist() == list(range(POOL))
            assert memory.slots.tolist() == slots.tolist()
            sizes = memory.sizes.tolist()
            first_reads = list(memory.read(slots))
        return Known(pool, sizes, first_reads, least_budget(case, folder))
    finally:
        shutil.rmtree(folder)


def least_budget(case: Case, folder: Path) -> int:
    """Find the smallest budget that `create` takes, by halving."""
    refused, taken = 0, 10**6
    while taken - refused > 1:
        middle = (refused + taken) // 2
        try:
            options = case.options()
            ExemplarMemory.create(folder / "least", max_bytes=middle, durable=False, threads=1, **options).close()
            taken = middle
        except BudgetTooSmallError:
            refused = middle
        shutil.rmtree(folder / "least", ignore_errors=True)
    return taken


def values_of(exemplar: Exemplar) -> dict[str, NDArray[Any]]:
    """Flatten an exemplar to arrays that can be compared bit for bit."""
    found = {f"{name} positions": tokens.positions for name, tokens in exemplar.tokens.items()}
    found |= {f"{name} values": np.asarray(tokens.values) for name, tokens in exemplar.tokens.items()}
    return found
