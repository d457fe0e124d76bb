"""A memory whose exemplars are given and taken as named tensors: what the adapters hold."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from exmem.errors import ExmemError, InvalidExemplarError, SchemaError
from exmem.integrations.samples.fields import TEXT, FieldSpec, rows_of
from exmem.integrations.samples.placed import AnyRecipe, PlacedMemory
from exmem.memory import AddReport, EncodedExemplars, ExemplarMemory
from exmem.tokens import Exemplar
from exmem.tokens.checks import as_array, mapping_of

__all__ = ["AnyRecipe", "FieldMemory"]


class FieldMemory(PlacedMemory):
    """A memory of samples as named tensors: made at the first add, when it is known what they hold, or gone on with.

    `recipe` says how images are stored, None stores any tensor as it is; `seed`, with eviction `by_priority`, makes it
    a uniform sample of all that came. Without `max_bytes` the budget is `raw_bytes` of `max_exemplars`; `options` are
    those of `ExemplarMemory.create`. A copy, a pickle, or one without a place lies in a folder of its own process; to
    copy it is to commit it.
    """

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their labels."""
        return np.zeros(0, np.int64) if self._memory is None else self._memory.labels

    @property
    def seen(self) -> int:
        """Samples that came so far, where it is a uniform sample of them."""
        return 0 if self._stream is None else self._stream.seen

    @property
    def fields(self) -> dict[str, FieldSpec]:
        """Fields of a sample; none before the first add."""
        return {} if self._layout is None else dict(self._layout.fields)

    def add(
        self, values: Mapping[str, Any], labels: ArrayLike | None = None, priorities: ArrayLike | None = None
    ) -> AddReport:
        """Add samples, whose fields are tensors or arrays (B, ...); what the limits do not hold is evicted.

        Labels are 0 when left out; a stream asks for no priorities. InvalidExemplarError, and nothing is added, if one
        does not look like those before it.
        """
        given, classes, ranks = self._checked(values, labels, priorities)
        with self._made_for(given):
            if self._stream is not None:
                return self.offer(len(classes), np.arange(len(classes)), given, classes)
            return self.add_encoded(self._encoded(given, classes, ranks), given)

    def encode(
        self, values: Mapping[str, Any], labels: ArrayLike | None = None, priorities: ArrayLike | None = None
    ) -> EncodedExemplars:
        """Encode samples and store nothing: what is wrong with them shows before anything is evicted for them."""
        given, classes, ranks = self._checked(values, labels, priorities)
        with self._made_for(given):
            return self._encoded(given, classes, ranks)

    @contextlib.contextmanager
    def _made_for(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Make the memory for the first samples; it is forgotten if these are refused, so that others may be first."""
        is_first = not self.exists and not self._find()  # it is there if a call that made it was interrupted
        if is_first:
            self._make(values)
        try:
            yield
        except ExmemError:
            if is_first and isinstance(self._place, str | os.PathLike):
                self.clear()
            raise

    def add_encoded(self, encoded: EncodedExemplars, values: Mapping[str, Tensor]) -> AddReport:
        """Add what `encode` made of values, which are kept as decoded ones where they come back as they are."""
        report = self._reported(lambda memory: memory.add(encoded))
        if self._bound is None and len(report.slots) and report.slots.min() >= 0:
            self.decoded.keep_given(report.slots, values)
        return report

    def _checked(
        self, values: Mapping[str, Any], labels: ArrayLike | None, priorities: ArrayLike | None
    ) -> tuple[dict[str, Tensor], NDArray[np.int64], NDArray[np.float64]]:
        given = {name: rows_of(held, name) for name, held in mapping_of(values, "values").items()}
        count = len(next(iter(given.values()), ()))
        classes = np.zeros(count, np.int64) if labels is None else as_array(labels)
        if classes.shape != (count,) or classes.dtype.kind not in "iu" or (classes > np.iinfo(np.int64).max).any():
            raise InvalidExemplarError(
                f"labels: expected {count} integers of 64 bits, got {classes.dtype} of {classes.shape}"
            )
        ranks = np.zeros(count) if priorities is None else as_array(priorities).astype(np.float64)
        if ranks.shape != (count,):
            raise InvalidExemplarError(f"priorities: expected {count}, got shape {ranks.shape}")
        return given, classes.astype(np.int64), ranks

    def _encoded(
        self, given: Mapping[str, Tensor], classes: NDArray[np.int64], ranks: NDArray[np.float64]
    ) -> EncodedExemplars:
        assert self._layout is not None
        if self._bound is None and TEXT not in self._layout.fields:  # as arrays: many times as fast as one by one
            return self.memory.encode(self._layout.batch(given, classes, ranks))
        return self.memory.encode(self._layout.exemplars(given, self._bound, classes, ranks))

    def above(self, count: int, *, after: int = 0) -> NDArray[np.int64]:
        """Name those of the next arrivals of a stream, behind `after` others, that have a chance."""
        return np.arange(count) if self._stream is None else self._stream.above(count, after=after)

    def offer(
        self, count: int, at: NDArray[np.int64], values: Mapping[str, Tensor], labels: NDArray[np.int64]
    ) -> AddReport:
        """Offer the next arrivals of a stream; those at the indices `at` are given, all that `above` names."""
        stream, layout = self._stream, self._layout
        if stream is None or layout is None:
            raise SchemaError("only a stream that has begun takes arrivals: give seed=, and add some first")
        layout.check(values, len(at))  # of all, for few of them are made

        def made(indices: NDArray[np.int64]) -> list[Exemplar]:
            rows = np.searchsorted(at, indices)
            if len(rows) and (rows[-1] >= len(at) or not np.array_equal(at[rows], indices)):
                raise InvalidExemplarError(
                    "expected all arrivals that have a chance, got fewer; ask above() which they are"
                )
            some = values if len(rows) == len(at) else {name: held[rows] for name, held in values.items()}
            return layout.exemplars(some, self._bound, labels[rows], np.zeros(len(rows)))

        return self._reported(lambda memory: stream.offer(count, made))

    def _reported(self, add: Callable[[ExemplarMemory], AddReport]) -> AddReport:
        self._tidy()  # before the add: if it fails, nothing is added that the caller does not know of
        try:
            report = add(self.memory)
        except ExmemError:
            self.decoded.keep_only(self.slots)  # some may be evicted
            raise
        self.decoded.drop(report.evicted)
        return report

    def read(self, slots: NDArray[np.int64], *, device: "torch.device | str" = "cpu") -> dict[str, Tensor]:
        """Return all fields of some exemplars, as they were given."""
        return self.decoded.read(slots, device=device)

    def update(self, slots: NDArray[np.int64], values: Mapping[str, Any]) -> None:
        """Give exemplars other values of fields that are neither image nor text."""
        self._tidy()
        self.decoded.drop(slots)  # before the change, which may be cut short
        try:
            self.memory.update(slots, extras={name: as_array(held) for name, held in values.items()})
        finally:
            self.decoded.keep_only(self.slots)  # some may be evicted

    def evict(self, slots: NDArray[np.int64]) -> None:
        """Evict exemplars."""
        self._tidy()
        self.decoded.drop(slots)
        self.memory.evict(slots)
