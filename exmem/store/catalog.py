"""The catalog in RAM: which slots hold an exemplar, where, and what is known of each without reading it."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import UnknownSlotError
from exmem.store.format.layout import Layout
from exmem.tokens.checks import array_of

__all__ = ["PENDING", "Catalog", "place_of", "segment_of", "where_at"]

PENDING = -1  # in the column `where`: staged, not in a segment yet
_GONE = -2
_LEAST_ROOM = 1024


def where_at(era: int, segment: int, place: int) -> int:
    """Return the one number that says where a row lies."""
    return era << 44 | segment << 8 | place


def segment_of(where: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return era and segment of rows as one number: era << 36 | segment."""
    return where >> 8


def place_of(where: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of rows within their segments."""
    return where & 0xFF


class Catalog:
    """What is held, by slot; columns as narrow as they can be.

    Rows are sorted by slot; what is removed is marked and swept out later, so that adding, finding and removing take
    the same time however much is held.
    """

    def __init__(self, layout: Layout) -> None:
        widest = max(layout.most_tokens)
        self._slots = np.zeros(0, np.int64)
        self._labels: NDArray[Any] = np.zeros(0, np.int32)
        self._priorities = np.zeros(0, np.float64)
        self._counts = np.zeros((0, len(layout.most_tokens)), np.uint16 if widest < 2**16 else np.uint32)
        self._lengths = np.zeros((0, len(layout.sharded)), np.uint32)
        self._where = np.zeros(0, np.int64)
        self._stop = 0  # rows in use, swept or not
        self._gone = 0

    def __len__(self) -> int:
        return self._stop - self._gone

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots that hold an exemplar, increasing, (N,)."""
        return self._all(self._slots)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their classes, (N,)."""
        return self._all(self._labels).astype(np.int64)

    @property
    def priorities(self) -> NDArray[np.float64]:
        """Their priorities, (N,)."""
        return self._all(self._priorities)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Their kept tokens by modality, (N, modalities)."""
        return self._all(self._counts).astype(np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Their payload bytes by sharded modality, (N, sharded)."""
        return self._all(self._lengths).astype(np.int64)

    @property
    def where(self) -> NDArray[np.int64]:
        """Where they lie (see `where_at`), or `PENDING`, (N,)."""
        return self._all(self._where)

    def find(self, slots: ArrayLike) -> NDArray[np.int64]:
        """Return the rows of some slots, for the methods below; UnknownSlotError if one holds no exemplar."""
        wanted = array_of(slots, "slots", error=UnknownSlotError)
        if wanted.size == 0:
            return np.zeros(0, np.int64)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise UnknownSlotError(
                f"slots must be a 1-D integer array, got {wanted.dtype} of shape {wanted.shape}; "
                "for a mask use memory.slots[mask]"
            )
        rows, held = self._look(wanted.astype(np.int64))
        if not held.all():
            missing = np.unique(wanted[~held])
            raise UnknownSlotError(
                f"{len(missing)} of {len(wanted)} slots hold no exemplar (never given out, or evicted): "
                f"{missing[:8].tolist()}; `slots` lists those that do"
            )
        return rows

    def holds(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which slots hold an exemplar."""
        return self._look(slots)[1]

    def slots_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slots of rows."""
        return self._slots[rows]

    def labels_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the classes of rows."""
        return self._labels[rows].astype(np.int64)

    def priorities_at(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the priorities of rows."""
        return self._priorities[rows]

    def counts_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the kept tokens of rows by modality."""
        return self._counts[rows].astype(np.int64)

    def lengths_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the payload bytes of rows by sharded modality."""
        return self._lengths[rows].astype(np.int64)

    def where_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where rows lie."""
        return self._where[rows]

    def append(
        self,
        slots: NDArray[np.int64],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
        counts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        where: NDArray[np.int64],
    ) -> None:
        """Enter exemplars behind all others: their slots are increasing and higher."""
        if len(slots) == 0:
            return
        if self._labels.dtype == np.int32 and (int(labels.min()) < -(2**31) or int(labels.max()) >= 2**31):
            self._labels = self._labels.astype(np.int64)
        start, stop = self._stop, self._stop + len(slots)
        if stop > len(self._slots):
            room = stop + max(_LEAST_ROOM, stop // 8)
            for name in ("_slots", "_labels", "_priorities", "_counts", "_lengths", "_where"):
                old = getattr(self, name)
                grown = np.empty((room, *old.shape[1:]), old.dtype)  # untouched pages cost no RAM
                grown[:start] = old[:start]
                setattr(self, name, grown)
        self._slots[start:stop], self._labels[start:stop], self._priorities[start:stop] = slots, labels, priorities
        self._counts[start:stop], self._lengths[start:stop], self._where[start:stop] = counts, lengths, where
        self._stop = stop

    def move(self, slots: NDArray[np.int64], where: NDArray[np.int64]) -> None:
        """Note where exemplars lie now."""
        self._where[self.find(slots)] = where

    def prioritise(self, slots: NDArray[np.int64], priorities: NDArray[np.float64]) -> None:
        """Note other priorities."""
        self._priorities[self.find(slots)] = priorities

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Strike out exemplars."""
        rows = self.find(slots)
        self._where[rows] = _GONE
        self._gone += len(rows)
        while self._stop and self._where[self._stop - 1] == _GONE:  # so that slots that were discarded can come again
            self._stop, self._gone = self._stop - 1, self._gone - 1
        if self._gone > _LEAST_ROOM + self._stop // 8:
            held = np.flatnonzero(self._where[: self._stop] != _GONE)
            for name in ("_slots", "_labels", "_priorities", "_counts", "_lengths", "_where"):
                column = getattr(self, name)
                column[: len(held)] = column[held]
            self._stop, self._gone = len(held), 0

    def _all(self, column: NDArray[Any]) -> NDArray[Any]:
        known: NDArray[Any] = column[: self._stop]
        return known[self._where[: self._stop] != _GONE] if self._gone else known.copy()

    def _look(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        known = self._slots[: self._stop]
        if not len(known):
            return np.zeros(len(slots), np.int64), np.zeros(len(slots), np.bool_)
        rows = np.minimum(np.searchsorted(known, slots), len(known) - 1)
        return rows, (known[rows] == slots) & (self._where[rows] != _GONE)
