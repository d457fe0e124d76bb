"""What is added and not committed: exemplars in RAM, and full segments of them that are put already."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.store.catalog import PENDING
from exmem.store.format.layout import Layout
from exmem.store.segments import Rows

__all__ = ["Moving", "PutSegment", "Staged"]


@dataclasses.dataclass(frozen=True, eq=False)
class PutSegment:
    """A segment that is put and not committed: catalog rows, accounted bytes, and as bits which rows are dead."""

    table: NDArray[np.int64]
    size: int
    dead: int = 0

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots of its rows, dead ones too."""
        return self.table[:, 0]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows are not dead."""
        return np.array([not self.dead >> place & 1 for place in range(len(self.table))], np.bool_)


@dataclasses.dataclass(frozen=True, eq=False)
class Moving:
    """A committed segment that is cleaned: its name, and its survivors with the places where they lie in it."""

    name: int
    places: NDArray[np.int64]
    rows: Rows


@dataclasses.dataclass(frozen=True, eq=False)
class Staged:
    """What the next commit makes visible; replaced as a whole, so that it is always one state or the next.

    `segments` are by era << 36 | segment; `reservoir` is the state of a stream that goes with them; `moving` is what
    the commit cleans in the same step.
    """

    rows: Rows
    next_slot: int
    segments: Mapping[int, PutSegment] = dataclasses.field(default_factory=dict)
    reservoir: Mapping[str, Any] | None = None
    moving: Moving | None = None

    @classmethod
    def nothing(cls, layout: Layout, next_slot: int) -> "Staged":
        """Return what is staged after a commit."""
        return cls(Rows.none(layout), next_slot)

    @property
    def is_empty(self) -> bool:
        """Whether a commit would change nothing."""
        return not len(self.rows) and not self.segments and self.reservoir is None and self.moving is None

    @property
    def waiting(self) -> Rows:
        """The exemplars that the next commit puts."""
        return self.rows if self.moving is None else self.moving.rows.joined(self.rows)

    def tables(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield catalog rows of what is staged, and where they lie."""
        yield self.rows.catalog, np.full(len(self.rows), PENDING, np.int64)
        for name, put in self.segments.items():
            places = np.flatnonzero(put.alive)
            yield put.table[places], name << 8 | places

    def without(self, slots: NDArray[np.int64]) -> "Staged":
        """Return what is left when some go, itself if none do; segments that are dead as a whole are left out."""
        kept = np.flatnonzero(~np.isin(self.rows.slots, slots))
        rows = self.rows if len(kept) == len(self.rows) else self.rows.take(kept)
        segments = {}
        for name, put in self.segments.items():
            gone = np.flatnonzero(np.isin(put.slots, slots)).tolist()
            changed = dataclasses.replace(put, dead=put.dead | sum(1 << place for place in gone)) if gone else put
            if changed.alive.any():
                segments[name] = changed
        same = rows is self.rows and all(segments.get(name) is put for name, put in self.segments.items())
        return self if same else dataclasses.replace(self, rows=rows, segments=segments)
