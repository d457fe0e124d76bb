"""Exemplars without pictures, streams of them, and counters of what a memory does with them."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from exmem import Exemplar, Schema, TokenSet, TokenSpec
from exmem.store import Writer
from exmem.store.objects.local import LocalObjects

__all__ = ["PAIRS", "Cleaning", "Puts", "arrays", "class_incremental", "pairs", "payloads", "raw_schema"]

CLASSES, WORDS = 100, 40
PAIRS = Schema(
    {
        "image": TokenSpec(positions=9, shape=(64,), dtype="uint8", codec="raw"),
        "text": TokenSpec(positions=WORDS, dtype="int32"),
    }
)


def raw_schema(size: int) -> Schema:
    """One token of so many bytes."""
    return Schema({"values": TokenSpec(positions=1, shape=(size,), dtype="uint8", codec="raw")})


def arrays(first: int, count: int, size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tokens and labels of exemplars that nothing compresses."""
    values = np.random.default_rng(first).integers(0, 256, (count, 1, size), np.uint8)
    return {"values": values}, np.arange(first, first + count) % CLASSES


def payloads(first: int, count: int, size: int, *, better: bool = False) -> list[Exemplar]:
    """The same as exemplars; `better`: each ranks before all that came earlier."""
    tokens, labels = arrays(first, count, size)
    return [
        Exemplar({"values": TokenSet.dense(values)}, label=label, priority=float(first + row + 1) if better else 0.0)
        for row, (values, label) in enumerate(zip(tokens["values"], labels.tolist(), strict=True))
    ]


def class_incremental(*, phases: int, classes: int, each: int, size: int) -> Iterator[list[Exemplar]]:
    """Batches of one class, ranked as by herding: the first is the best; each phase brings new classes."""
    for label in range(phases * classes):
        tokens, _ = arrays(label, each, size)
        yield [
            Exemplar({"values": TokenSet.dense(values)}, label=label, priority=-float(rank))
            for rank, values in enumerate(tokens["values"])
        ]


def pairs(first: int, count: int) -> list[Exemplar]:
    """Images of 5 of 9 tokens and texts of 20 of 40 words."""
    rng = np.random.default_rng(first)
    images = rng.integers(0, 256, (count, 5, 64), np.uint8)
    words = rng.integers(0, 30_000, (count, WORDS // 2), np.int32)
    places, chosen = np.arange(0, 9, 2), np.arange(0, WORDS, 2)
    return [
        Exemplar(
            {"image": TokenSet(places, images[row]), "text": TokenSet(chosen, words[row])},
            label=(first + row) % CLASSES,
            priority=float(first + row),
        )
        for row in range(count)
    ]


class Puts:
    """Counts the files that are put while it is entered, and their bytes."""

    def __init__(self) -> None:
        self.count, self.num_bytes = 0, 0

    def __enter__(self) -> "Puts":
        self._before = LocalObjects.put

        def put(objects: LocalObjects, key: str, data: bytes) -> None:
            self.count, self.num_bytes = self.count + 1, self.num_bytes + len(data)
            self._before(objects, key, data)

        LocalObjects.put = put  # type: ignore[method-assign]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        LocalObjects.put = self._before  # type: ignore[method-assign]


class Cleaning:
    """Adds up what cleaning copies, frees and puts while it is entered."""

    def __init__(self) -> None:
        self.times, self.copied, self.freed, self.put = 0, 0, 0, 0

    @property
    def ratio(self) -> float:
        """Bytes of survivors over bytes of the dead beside them."""
        return self.copied / max(1, self.freed)

    @property
    def put_ratio(self) -> float:
        """The same of everything that was put: open segments once more, and documents."""
        return self.put / max(1, self.freed)

    def __enter__(self) -> "Cleaning":
        self._before, self._commit = Writer.clean, Writer.commit

        def clean(writer: Writer, name: int, **options: Any) -> bool:
            info = writer.info(name)
            with Puts() as puts:
                done = self._before(writer, name, **options)
            if done and info is not None:
                self.times += 1
                self.copied += info.size - info.dead_size
                self.freed += info.dead_size
                self.put += puts.num_bytes
            return done

        def commit(writer: Writer) -> None:
            arrivals, moving = int(writer.staged.rows.sizes.sum()), writer.staged.moving
            info = None if moving is None else writer.info(moving.name)
            with Puts() as puts:
                self._commit(writer)
            if moving is not None and info is not None:
                self.times += 1
                self.copied += info.size - info.dead_size
                self.freed += info.dead_size
                self.put += puts.num_bytes - arrivals

        Writer.clean, Writer.commit = clean, commit  # type: ignore[method-assign]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        Writer.clean, Writer.commit = self._before, self._commit  # type: ignore[method-assign]
