"""What a writer knows of its store: what is held and where, and what there is room for. Changes nothing."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.store.catalog import Catalog
from exmem.store.format.layout import Layout
from exmem.store.format.numbers import text_bytes
from exmem.store.format.root import ROOT_KEY, Root
from exmem.store.format.state import STATE_KEY, Era, State
from exmem.store.least import beside_segments, least_budget, most_rows
from exmem.store.loading import Loaded, SegmentInfo
from exmem.store.objects import LOCK_BYTES, LOCK_KEY, BudgetedObjects
from exmem.store.recovery import expected_keys
from exmem.store.segments import Rows, stored_bytes
from exmem.store.sizes import MOST_LENGTH, arrange, exemplar_bytes, least_length, reserve_bytes, rows_for, segment_bytes
from exmem.store.staging import Staged

__all__ = ["CLEANED_FROM", "Books"]

CLEANED_FROM = 32  # a segment is cleaned when at least one in so many of its rows is dead


class _Measured(NamedTuple):
    """What was measured last, and of what: making room asks again and again."""

    staged: Staged
    extra: Rows | None
    made_for: tuple[int, int]
    result: tuple[int, int, Callable[[], int]]


class Books:
    """The committed state of a store whose lock is held, and what is staged on top of it."""

    def __init__(self, objects: BudgetedObjects, layout: Layout, root: Root, loaded: Loaded) -> None:
        self._objects = objects
        self._layout = layout
        self._damaged: set[int] = set()  # segments that could not be copied
        self._last_measured: _Measured | None = None
        self.foreign_bytes: int = 0  # of files that are none of this store's, when it was listed last
        self.root: Root = root
        self.staged: Staged = Staged.nothing(layout, loaded.state.next_slot)
        self._show(loaded)

    @property
    def used_bytes(self) -> int:
        """Sizes of all objects."""
        return self._objects.total_bytes

    @property
    def packing_target(self) -> int:
        """The size that segments are made for: that of the budget that is wanted, if one is."""
        return int((self.state.wanted or {}).get("target", self.state.target))

    @property
    def has_segments(self) -> bool:
        """Whether a segment of the era was put."""
        return self.state.eras[self.state.era].given > 0 or bool(self.staged.segments)

    @property
    def open_segment(self) -> int:
        """Name of the segment that is written on; -1 of none."""
        number, era = self.state.era, self.state.eras[self.state.era]
        return -1 if era.open < 0 else number << 36 | era.open

    def reserve(self, new_segments: int = 0, *, state: State | None = None) -> int:
        """Return what has to stay free beside the objects, in another state than this; see `exmem.store.sizes`.

        The document will name the segments that are staged, and `new_segments` besides.
        """
        state = state or self.state
        era, most_document = state.eras[state.era], state.most_bytes(new_segments, self._staged_numbers())
        now, largest = self._layout.era_sizes(state.era, era.rows, era.length)
        most = self._layout.era_sizes(state.era, era.rows, MOST_LENGTH)[0]
        return reserve_bytes(
            self._layout,
            rows=era.rows,
            target=state.target,
            document_bytes=most_document,
            metadata_bytes=max(self.root.num_bytes, largest),
            growth_bytes=most_document - len(self.state.document) + most - now,
        )

    def _staged_numbers(self) -> dict[int, list[int]]:
        numbers: dict[int, list[int]] = {}
        for name in self.staged.segments:
            numbers.setdefault(name >> 36, []).append(name & (1 << 36) - 1)
        return numbers

    def shortage(
        self, extra: Rows | None = None, *, root: Root | None = None, new_era: bool = False, **changes: Any
    ) -> int:
        """Return how many bytes are missing (0 or less: none) to commit what is staged, and `extra` besides.

        With another root, a new era, if one is due, and in the state that `changes` of this lead to. Exemplars that
        wait are counted as if they got segments of their own, which always can be put.
        """
        base, bound, exact = self._needed(extra, root, changes, new_era=new_era)
        return base + bound if base + bound <= 0 else base + exact()

    def needed_alone(self, one: Rows) -> int:
        """Return the budget that one exemplar needs in a store without others, or a bound of it that is there."""
        rows = rows_for(self.state.target, int(one.sizes[0]), 1)
        segment = segment_bytes(self._layout, rows, 1, one.payload_bytes)
        bound = self.used_bytes - self.chunk_bytes + self.reserve() + segment
        if bound <= self.state.budget_bytes:
            return bound
        return least_budget(self._layout, self.root, self.state) + segment

    def added_bytes(self, extra: Rows) -> int:
        """Return how many bytes more are needed to commit `extra` beside what is staged."""
        with_it, _, exact_with_it = self._needed(extra, None, {})
        without, _, exact_without = self._needed(None, None, {})
        return with_it + exact_with_it() - without - exact_without()

    def _needed(
        self, extra: Rows | None, root: Root | None, changes: Mapping[str, Any], *, new_era: bool = False
    ) -> tuple[int, int, Callable[[], int]]:
        """Return what is missing without the segments of what waits and `extra`, their most bytes, and their bytes."""
        if self.staged.reservoir is not None:
            changes = {"reservoir": self.staged.reservoir, **changes}
        state = dataclasses.replace(self.state, **changes) if changes else self.state
        rows, metadata = state.eras[state.era].rows, 0
        if extra is not None or new_era:
            rows, metadata = self.coming_era(extra)
        number, bound, exact = self._measured(extra, rows)
        state = self.in_coming_era(state, rows)
        base = self.used_bytes - self._moving_bytes + metadata + self.reserve(number, state=state)
        base += 0 if root is None else self.root_growth(root)
        return base - state.budget_bytes, bound, exact

    @property
    def _moving_bytes(self) -> int:
        """What the next commit gives back of the segment that it cleans."""
        moving = self.staged.moving
        return 0 if moving is None else self._segment_bytes(moving.name)

    def _segment_bytes(self, name: int) -> int:
        return sum(self._objects.sizes.get(key, 0) for key in self._layout.segment_keys(*divmod(name, 1 << 36)))

    def _measured(self, extra: Rows | None, rows: int) -> tuple[int, int, Callable[[], int]]:
        """Return how many segments what waits and `extra` would fill, their most bytes, and what measures them."""
        last = self._last_measured
        if last and last.staged is self.staged and last.extra is extra and last.made_for == (rows, self.packing_target):
            return last.result
        waiting = self._waiting(extra)
        sizes = waiting.sizes.tolist()
        _, groups, alone = arrange(sizes, rows=rows, target=self.packing_target, held_rows=rows, held_bytes=0)
        parts = [*groups, *alone]
        bound = len(parts) * segment_bytes(self._layout, rows, 0, 0) + waiting.payload_bytes
        bound += 2 * len(waiting) * self._layout.plain_bytes
        # The joined rows are not kept: they are a second copy of what is added.
        exact = functools.cache(lambda: _stored_bytes(self._waiting(extra), parts, rows))
        measured = len(parts), bound, exact
        self._last_measured = _Measured(self.staged, extra, (rows, self.packing_target), measured)
        return measured

    def _waiting(self, extra: Rows | None) -> Rows:
        return self.staged.waiting if extra is None else self.staged.waiting.joined(self.named(extra))

    def named(self, rows: Rows) -> Rows:
        """Return exemplars as the next commit writes them: under the next slots, unless they have some."""
        fresh = len(rows) > 0 and int(rows.slots[0]) < 0
        slots = np.arange(self.staged.next_slot, self.staged.next_slot + len(rows)) if fresh else rows.slots
        return rows.named(slots, self.state.generation + 1)

    def coming_era(self, extra: Rows | None) -> tuple[int, int]:
        """Return the rows of a segment once `extra` is added, and the bytes of metadata that a new era would cost."""
        number = self.state.era
        era = self.state.eras[number]
        added, count = (0, 0) if extra is None else (int(extra.sizes.sum()), len(extra))
        held = count + len(self.catalog)
        rows = min(era.rows, most_rows(self._layout, self.packing_target))
        rows = rows_for(self.packing_target, self.held_bytes + added, held) if held else rows
        if not self.has_segments:  # it is this era still, and its metadata are put again
            put = self._layout.era_sizes(number, rows, least_length(rows, 1))[0]
            return rows, put - self._layout.era_sizes(number, era.rows, era.length)[0] if rows != era.rows else 0
        shrinking = self.packing_target < self.state.target and rows != era.rows
        if era.rows < 4 * rows and rows < 4 * era.rows and not shrinking:
            return era.rows, 0
        cost = self._layout.era_sizes(number + 1, rows, least_length(rows, 1))[0]
        # Of a store that shrinks everything is moved into the new era, and the old one goes.
        worth_it = shrinking or cost * CLEANED_FROM <= self.state.budget_bytes
        return (rows, cost) if worth_it else (era.rows, 0)

    def in_coming_era(self, state: State, rows: int) -> State:
        """Return a state in which segments have `rows` places: in this era while it has none, else in a new one."""
        number, era = state.era, state.eras[state.era]
        if rows == era.rows:
            return state
        if self.has_segments:
            state = state.with_era(number, dataclasses.replace(era, open=-1, open_rows=0))
            number += 1
        return state.with_era(number, Era(rows, least_length(rows, 1)))

    def info(self, name: int) -> SegmentInfo | None:
        """Return what is known of a segment, committed or staged; None of what waits in RAM."""
        put = self.staged.segments.get(name)
        if put is None:
            return self.segments.get(name)
        sizes, alive = exemplar_bytes(self._layout, put.table[:, self._layout.first_length :]), put.alive
        return SegmentInfo(len(alive), int(sizes.sum()), int((~alive).sum()), int(sizes[~alive].sum()))

    def mean_share(self) -> float:
        """Return the bytes on the disk per accounted byte: rows are accounted uncompressed."""
        accounted = self.accounted_bytes + sum(put.size for put in self.staged.segments.values())
        if accounted:
            return min(1.0, self.chunk_bytes / accounted)
        waiting = int(self.staged.rows.sizes.sum())
        return min(1.0, self._measured(None, self.state.eras[self.state.era].rows)[2]() / waiting) if waiting else 1.0

    def stored_share(self, name: int) -> float:
        """Return the same of one segment."""
        info = self.info(name)
        return self._segment_bytes(name) / info.size if info else 1.0

    def document_share(self) -> float:
        """Return about the bytes that an exemplar takes in the document, and in the reserve for it."""
        rows = self.state.eras[self.state.era].rows
        return 2 * (text_bytes(3 + -(-rows // 8)) if rows > 1 else 0) / rows + 4 / 3 / rows

    def record(self, infos: Mapping[int, SegmentInfo | None]) -> None:
        """Note what is known of committed segments now; None of those that are gone."""
        for name, info in infos.items():
            before = self.segments.pop(name, None)
            self.accounted_bytes -= before.size if before else 0
            self._cleanable.pop(name, None)
            if info is not None:
                self.segments[name] = info
                self.accounted_bytes += info.size
                if info.dead_rows and self.is_cleanable(info):
                    self._cleanable[name] = info.dead_size

    @staticmethod
    def is_cleanable(info: SegmentInfo) -> bool:
        """Whether enough of a segment is dead for what is copied to be at most 31 times what it gives back."""
        return info.dead_rows * CLEANED_FROM >= info.rows

    def room_anew(self, state: State) -> int:
        """Return about how many accounted bytes, of exemplars like those held, fit into a store of another state."""
        count, size = len(self.catalog), self.held_bytes
        rows = rows_for(state.target, size, count) if count else 1
        segments = max(-(-count // rows), -(-size // state.target))
        fixed, full = (
            beside_segments(self._layout, self.root, state, rows=rows, segments=number) for number in (1, 1 + segments)
        )
        return max(0, int((state.budget_bytes - fixed) / (self.mean_share() + (full - fixed) / max(1, size))))

    def root_growth(self, root: Root) -> int:
        """Return the bytes that another root needs more: it is longer, and so is what has to be replaced next."""
        return 2 * max(0, root.num_bytes - self.root.num_bytes)

    def _show(self, loaded: Loaded) -> None:
        self.state: State = loaded.state
        self.catalog: Catalog = loaded.catalog
        self.segments: dict[int, SegmentInfo] = {}
        self.accounted_bytes: int = 0  # of all rows of committed segments, dead ones too
        self._cleanable: dict[int, int] = {}
        self.record(loaded.segments)
        self.damaged_chunks: dict[str, str] = loaded.damaged
        parts = list(self.staged.tables())
        table = np.concatenate([rows for rows, _ in parts])
        where = np.concatenate([places for _, places in parts])
        order = np.argsort(table[:, 0], kind="stable")
        self._append(table[order], where[order])
        self.held_bytes: int = int(exemplar_bytes(self._layout, self.catalog.lengths).sum())
        self._raise_limit()

    def _append(self, table: NDArray[np.int64], where: NDArray[np.int64]) -> None:
        layout = self._layout
        self.catalog.append(
            table[:, 0],
            table[:, 2],
            np.ascontiguousarray(table[:, 3]).view(np.float64),
            table[:, layout.first_count : layout.first_length],
            table[:, layout.first_length :],
            where,
        )

    def _raise_limit(self) -> None:
        """Let steps that give bytes back be taken also where foreign or damaged files fill the budget."""
        self._objects.limit = max(self.state.budget_bytes, self.used_bytes + self.reserve())

    @property
    def chunk_bytes(self) -> int:
        """Sizes of the chunks of all segments, staged ones too."""
        eras = sum(self._layout.era_sizes(number, era.rows, era.length)[0] for number, era in self.state.eras.items())
        state = self._objects.sizes.get(STATE_KEY, 0)
        return self.used_bytes - eras - state - self.root.num_bytes - LOCK_BYTES - self.foreign_bytes

    def _count_foreign(self) -> None:
        expected = expected_keys(self._layout, self.state) | {ROOT_KEY, STATE_KEY, LOCK_KEY}
        expected.update(
            key for name in self.staged.segments for key in self._layout.segment_keys(*divmod(name, 1 << 36))
        )
        self.foreign_bytes = sum(size for key, size in self._objects.sizes.items() if key not in expected)


def _stored_bytes(rows: Rows, parts: Sequence[Sequence[int]], places: int) -> int:
    return sum(stored_bytes(rows.take(indices), places) for indices in parts)
