"""Exemplars by index under a budget of bytes: a ring that has as many places as the bytes hold."""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.errors import BudgetError, DataError
from exmem.integrations.samples.memory import FieldMemory
from exmem.integrations.samples.ring import Ring
from exmem.memory import AddReport, EncodedExemplars

__all__ = ["UNLIMITED", "RingMemory"]

UNLIMITED = int(np.iinfo(np.int64).max)
_UNCOMMITTED = 256  # exemplars at most that a crash loses; the more there are, the longer an eviction looks for them
_SPARE = 32  # part of the budget, and of the ring that shrinks, that stays free for exemplars that vary


class RingMemory:
    """Writes exemplars at indices 0 to `max_size - 1`; the label of an exemplar is its index, the last ones go first.

    `put` returns the indices that hold another exemplar than its caller knows.
    """

    def __init__(self, fields: FieldMemory, most: int) -> None:
        self.fields = fields
        self.most = most
        self.room: int | None = None  # places, once the bytes are full
        self._ring = Ring()
        self._entry_bytes = 0.0  # of the last exemplars, each
        self._uncommitted = self._lost = 0
        self._moved = np.zeros(0, np.int64)  # indices of which the caller does not know yet
        self._is_followed = True  # whether the writer has seen the ring shrink

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def max_size(self) -> int:
        """Places: as many as were asked for, or as the bytes hold once they are full."""
        return self.most if self.room is None else self.room

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slot of each index."""
        return self._ring.slots

    def take_up(self, known: NDArray[np.int64] | None = None, room: int | None = None) -> None:
        """Find the exemplars of the memory that is there, by their labels or where it is known which index each has."""
        memory = self.fields.memory
        if known is not None:  # a smaller budget than that of the dump evicts some of the last ones
            known = known[np.isin(known, memory.slots)]
        ring = Ring.of(memory.slots, memory.labels) if known is None else Ring(known)
        if not np.array_equal(np.sort(ring.slots), memory.slots):
            raise DataError(f"{memory.location}: it does not hold the entries that its dump names")
        self._ring, self._is_followed = ring, True
        self.room = None if room is None else max(1, min(room, self.most))
        self._entry_bytes = float(memory.sizes.mean()) if len(ring) else 0.0

    def clear(self, *, evict: bool = True) -> None:
        """Forget all exemplars, or evict them."""
        if evict and len(self):
            self.fields.evict(self.slots)
        self._ring, self.room, self._is_followed = Ring(), None, True

    def indices(self, given: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Return where so many exemplars are written; IndexError if that is not there and does not follow the last."""
        held = len(self)
        if len(given) != count:
            raise IndexError(f"expected one index for each of {count} entries, got {len(given)}")
        index = np.where(given < 0, given + held, given)
        if count and (index.min() < 0 or index.max() >= self.most):
            raise IndexError(f"expected indices of 0..{self.most - 1}, got {given.min()}..{given.max()}")
        index = index % self.max_size  # of a writer that was on its way when the ring shrank
        new = np.unique(index[index >= held])
        if len(new) and new[-1] != held + len(new) - 1:
            raise IndexError(f"expected the indices of {held} entries, or those that follow, got {new[0]}..{new[-1]}")
        self._is_followed = not count or bool(given.max() < self.max_size)
        return index

    def put(
        self, index: NDArray[np.int64], values: Mapping[str, Tensor], *, remembers: bool = False
    ) -> NDArray[np.int64]:
        """Evict what the indices held and add what they are to hold; of those of one index the last.

        Where the caller `remembers` indices, BudgetError instead of a ring that shrinks; nothing was changed.
        """
        last = len(index) - 1 - np.unique(index[::-1], return_index=True)[1]
        rows = np.sort(last)  # in the order in which they came
        encoded = self.fields.encode(_taken(values, rows), index[rows], -index[rows].astype(np.float64))
        if remembers:
            self._check_fits(self._ring.held(index[rows]), encoded.sizes)
        slots = np.full(len(index), -1, np.int64)
        while len(rows):
            expected = max(len(self), int(index[rows].max()) + 1)
            self._entry_bytes = float(encoded.sizes.mean())
            report = self._write(index[rows], encoded, _taken(values, rows))
            slots[rows] = report.slots
            if len(self) < expected:
                self._shrink(self._lost)
            wanted = np.sort(last)[-self.max_size :]
            rows = wanted[~np.isin(slots[wanted], self.slots)]  # there was no room for them, or not any longer
            if len(rows):
                index = index.copy()
                index[rows] = self._places(len(rows), beside=np.isin(self.slots, slots[wanted]), behind=int(index[-1]))
                self._moved = np.union1d(self._moved, index[rows])
                encoded = self.fields.encode(_taken(values, rows), index[rows], -index[rows].astype(np.float64))
        moved, self._moved = self._moved, np.zeros(0, np.int64)
        return moved[moved < len(self)]

    def _write(self, index: NDArray[np.int64], encoded: EncodedExemplars, values: Mapping[str, Tensor]) -> AddReport:
        replaced = self._ring.held(index)
        if len(replaced) and self._uncommitted >= _UNCOMMITTED:
            self.commit()
        self._uncommitted += len(encoded)
        try:
            if len(replaced):
                self.fields.evict(replaced)
                self._ring.vacate(index)
            report = self.fields.add_encoded(encoded, values)
            self._lost = self._ring.lose(report.evicted)
            self._ring.enter(index, report.slots)
        finally:  # also of an add that failed after the eviction
            self._moved = np.union1d(self._moved, self._ring.close_gaps())
        return report

    def _places(self, count: int, *, beside: NDArray[np.bool_], behind: int) -> NDArray[np.int64]:
        """Return indices for exemplars that lost theirs: those the ring comes to last, but none of the same batch."""
        order = (behind - np.arange(self.max_size)) % self.max_size
        taken = np.zeros(self.max_size, np.bool_)
        taken[: len(beside)] = beside
        return np.asarray(order[~taken[order]][:count][::-1], np.int64)

    def commit(self) -> None:
        """Make what was put durable."""
        self.fields.commit()
        self._uncommitted = 0

    def update(self, index: NDArray[np.int64], values: Mapping[str, Tensor]) -> NDArray[np.int64]:
        """Give exemplars other values of fields that are not the image; return as `put`."""
        try:
            self.fields.update(self.slots[index], values)
        finally:
            self._ring.lose(np.setdiff1d(self.slots, self.fields.slots))  # what went to make room
            moved = self._ring.close_gaps()
        return moved

    def foresee(self, count: int) -> None:
        """Close the ring before so many exemplars come for which there are no bytes; open it where there are plenty."""
        if not len(self):
            return
        memory = self.fields.memory
        fits = max(0, int((memory.free_bytes - memory.max_bytes / _SPARE) / max(1.0, self._entry_bytes)))
        if self.room is not None and self._is_followed and 4 * fits > self.room:  # exemplars have become smaller
            self.room = None
        if self.room is None and fits < min(count, self.most - len(self)):
            self.room = len(self) + fits
            if self.most < UNLIMITED:
                warnings.warn(
                    f"{memory.location}: {memory.max_bytes:,} bytes hold {self.room:,} entries like these, not "
                    f"{self.most:,}; from now on the ring has so many places",
                    stacklevel=5,
                )

    def _shrink(self, lost: int) -> None:
        """Give the ring as many places as it has exemplars, less some, for those that vary."""
        memory, room = self.fields.memory, max(1, len(self) - len(self) // _SPARE)
        if room < len(self):
            self.fields.evict(self.slots[room:])
            lost += len(self) - room
            self._ring.cut(room)
        self.room, self._is_followed = room, False
        if lost or self.most < UNLIMITED:
            warnings.warn(
                f"{memory.location}: {memory.max_bytes:,} bytes hold {room:,} entries as large as those that came; "
                f"{lost:,} entries of the highest indices went",
                stacklevel=5,
            )

    def _check_fits(self, replaced: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Refuse what would shrink the ring; nothing was changed."""
        memory = self.fields.memory
        back = sum(int(held.sum()) for held in memory.sizes_by_part(replaced).values())
        free, coming = memory.free_bytes + back - memory.max_bytes // _SPARE, int(sizes.sum())
        if coming > free:
            raise BudgetError(
                f"{len(sizes):,} entries need {coming:,} bytes, {max(0, free):,} are free, and a writer that remembers "
                f"indices cannot follow a ring that shrinks; give max_size={len(self):,} or less, or raise max_bytes"
            )


def _taken(values: Mapping[str, Tensor], rows: NDArray[np.int64]) -> dict[str, Tensor]:
    if len(rows) == len(next(iter(values.values()))):
        return dict(values)
    return {name: held[torch.from_numpy(rows)] for name, held in values.items()}
