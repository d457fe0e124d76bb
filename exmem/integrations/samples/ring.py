"""Which exemplar each index of a replay buffer is."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ring"]

_FIRST_ROOM = 64


class Ring:
    """Slots by index, 0 to `len - 1`; -1 for an index that has lost its exemplar, until `close_gaps`."""

    def __init__(self, slots: NDArray[np.int64] | None = None) -> None:
        given = np.zeros(0, np.int64) if slots is None else slots
        self._held = len(given)
        self._table = np.concatenate([given.astype(np.int64), np.full(_FIRST_ROOM, -1, np.int64)])

    @classmethod
    def of(cls, slots: NDArray[np.int64], labels: NDArray[np.int64]) -> "Ring":
        """Make the ring of exemplars whose labels are their indices, slots rising.

        A crash between an eviction and an add may have left indices without an exemplar, and others with two: of these
        the newer one counts, and the rest take what is free.
        """
        table = np.full(len(slots), -1, np.int64)
        inside = (labels >= 0) & (labels < len(slots))
        newest = len(slots) - 1 - np.unique(labels[::-1], return_index=True)[1]
        chosen = newest[inside[newest]]
        table[labels[chosen]] = slots[chosen]
        table[table < 0] = np.setdiff1d(slots, table)
        return cls(table)

    def __len__(self) -> int:
        return self._held

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slot of each index."""
        return self._table[: self._held]

    def held(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slots of those indices that have one."""
        return self._table[index[index < self._held]]

    def vacate(self, index: NDArray[np.int64]) -> None:
        """Note that the exemplars of these indices went."""
        self._table[index[index < self._held]] = -1

    def lose(self, slots: NDArray[np.int64]) -> int:
        """Note that these exemplars went; return how many of them had an index."""
        gone = np.isin(self.slots, slots) if len(slots) else np.zeros(self._held, np.bool_)
        self.slots[gone] = -1
        return int(gone.sum())

    def enter(self, index: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Give indices exemplars."""
        needed = int(index.max(initial=-1)) + 1
        if needed > len(self._table):
            more = np.full(max(needed, len(self._table)), -1, np.int64)
            self._table = np.concatenate([self._table, more])
        self._table[self._held : needed] = -1
        self._held = max(self._held, needed)
        self._table[index] = slots

    def close_gaps(self) -> NDArray[np.int64]:
        """Let exemplars of the end take the indices that have none; return these indices."""
        slots = self.slots
        count = int((slots >= 0).sum())
        gaps, behind = np.flatnonzero(slots[:count] < 0), slots[count:]
        slots[gaps] = behind[behind >= 0]
        self._held = count
        return gaps

    def cut(self, length: int) -> None:
        """Forget the indices from `length` on."""
        self._held = min(self._held, length)
