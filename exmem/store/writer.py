"""Changing a store in steps, each with one commit point and a legal state after it (FORMAT.md, Changing a store)."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CorruptExemplarError
from exmem.store.catalog import PENDING, segment_of
from exmem.store.format.chunks import ENTRY_BYTES
from exmem.store.format.root import ROOT_KEY, Root, root_document
from exmem.store.format.state import State
from exmem.store.loading import SegmentInfo
from exmem.store.packing import bury, drop_empty_eras
from exmem.store.recovery import restore_documents
from exmem.store.segments import Rows, segment_objects
from exmem.store.sizes import arrange, exemplar_bytes, noise_bytes
from exmem.store.staging import Moving, PutSegment, Staged
from exmem.store.steps import Steps

__all__ = ["Writer"]

_NONE = np.zeros(0, np.int64)
_WASTED = 256  # places that stay empty may take one in so many bytes


class Writer(Steps):
    """The only thing that changes a store: one process, one object; each method is one step or a few."""

    def fit_era(self, extra: Rows | None) -> None:
        """Begin an era if segments of the present one would hold far too many or too few exemplars: a step."""
        state = self.in_coming_era(self.state, self.coming_era(extra)[0])
        if state is self.state:
            return
        number, era = state.era, state.eras[state.era]
        state, emptied = drop_empty_eras(state, self._layout, self.staged.segments)
        self._step(self._layout.era_documents(number, era.rows, era.length), state, gone=emptied)
        self._tail = None

    def stage(self, rows: Rows, *, reservoir: Mapping[str, Any] | None = None) -> NDArray[np.int64]:
        """Give slots to exemplars for which there is room; full segments are put at once, but are not committed.

        `reservoir` is the state of a stream that goes with them.
        """
        self.fit_era(rows)
        self._last_measured = None  # it holds what is staged now
        before = self.staged
        try:
            return self._stage(rows, reservoir or before.reservoir)
        except BaseException:
            self.dirty, self.staged = True, before  # they were not added
            raise

    def _stage(self, rows: Rows, reservoir: Mapping[str, Any] | None) -> NDArray[np.int64]:
        named = self.named(rows)
        slots = named.slots
        waiting = self.staged.rows.joined(named)
        number = self.state.era
        places = self.state.eras[number].rows
        _, groups, alone = arrange(
            waiting.sizes.tolist(), rows=places, target=self.packing_target, held_rows=places, held_bytes=0
        )
        full, first = [*alone, *groups[:-1]], self._next_segment()
        self._fit_length(first + len(full))
        where = np.full(len(waiting), PENDING, np.int64)
        segments = dict(self.staged.segments)
        self.dirty = True
        for segment, indices in enumerate(full, first):
            content = waiting.take(indices)
            self._put(segment_objects(content, number, segment, places))
            name = number << 36 | segment
            segments[name] = PutSegment(content.catalog, int(content.sizes.sum()))
            where[indices] = name << 8 | np.arange(len(indices))
        left = waiting.take(groups[-1]) if groups else Rows.none(self._layout)
        known, after = len(waiting) - len(rows), self.staged.next_slot + len(rows)
        self.staged = Staged(left, after, segments, reservoir, self.staged.moving)
        self.catalog.move(waiting.slots[:known], where[:known])
        self._append(named.catalog, where[known:])
        self.held_bytes += int(rows.sizes.sum())
        self.dirty = False
        return slots

    def commit(self) -> None:
        """Make what is staged durable and visible, all or nothing."""
        staged, number = self.staged, self.state.era
        if staged.is_empty:
            return
        self._fit_length(self._next_segment() + self._measured(None, self.state.eras[number].rows)[0])
        rows, moving = staged.waiting, staged.moving
        opened = moving is not None and moving.name == self.open_segment
        beside = moving is not None and not opened and self._fills_segment(rows)
        packed = self._pack_within(rows, closed=opened, beside=beside)
        state, infos = self.state.with_era(number, packed.era), {}
        for name, put in staged.segments.items():
            era_number, segment = divmod(name, 1 << 36)
            era = state.eras[era_number].with_segments(np.array([segment]), _NONE).with_dead({segment: put.dead})
            state = state.with_era(era_number, dataclasses.replace(era, given=max(era.given, segment + 1)))
            sizes = exemplar_bytes(self._layout, put.table[:, self._layout.first_length :])
            lost = ~put.alive
            infos[name] = SegmentInfo(len(sizes), int(sizes.sum()), int(lost.sum()), int(sizes[lost].sum()))
        state = dataclasses.replace(
            state,
            generation=state.generation + (1 if len(staged.rows) or staged.segments else 0),
            next_slot=max(state.next_slot, staged.next_slot),
            reservoir=state.reservoir if staged.reservoir is None else staged.reservoir,
        )
        where, sizes = (_NONE, _NONE) if moving is None else (moving.name << 8 | moving.places, moving.rows.sizes)
        state, dead, gone, keys = self._buried(state, self.segments, where, sizes)

        def apply() -> None:
            self.catalog.move(rows.slots, packed.where)
            self._enter(packed)
            self.record(infos)
            self._bury(dead, gone)

        nothing = Staged.nothing(self._layout, state.next_slot)
        self._step(packed.puts, state, staged=nothing, apply=apply, gone=keys)

    def discard(self) -> None:
        """Forget what is staged; nothing committed changes, and the slots are given out again."""
        staged = self.staged
        if staged.is_empty:
            return
        self.dirty = True
        self.staged = Staged.nothing(self._layout, self.state.next_slot)
        self._forget(np.concatenate([table[:, 0] for table, _ in staged.tables()]))
        for key in self._keys(staged.segments):
            self._delete(key)
        self.dirty = False

    def evict(
        self, slots: NDArray[np.int64], *, staged_reservoir: Mapping[str, Any] | None = None, **changes: Any
    ) -> None:
        """Evict exemplars, committed and staged ones: one step, however many; `changes` are made in the same step."""
        rows = self.catalog.find(slots)
        where = self.catalog.where_at(rows)
        sizes = exemplar_bytes(self._layout, self.catalog.lengths_at(rows))
        before, staged = self.staged, self.staged.without(slots)
        if staged_reservoir is not None:
            staged = dataclasses.replace(staged, reservoir=staged_reservoir)
        committed = (where != PENDING) & ~np.isin(segment_of(where), list(before.segments))
        state, infos, gone = bury(self.state, self.segments, where[committed], sizes[committed])
        state = dataclasses.replace(state, generation=state.generation + 1, **changes)
        state, emptied = drop_empty_eras(state, self._layout, staged.segments)

        def apply() -> None:
            self._forget(slots)
            self._bury(infos, gone)

        lost = [name for name in before.segments if name not in staged.segments]
        self._step({}, state, staged=staged, apply=apply, gone=[*self._keys([*gone, *lost]), *emptied])

    def clean(self, name: int, *, rebuild: bool = False, within_reserve: bool = False) -> bool:
        """Copy the survivors of a segment into the open one and delete it: a step; False if they cannot be read.

        Of a segment made for a larger target, what is more than one new segment holds waits for the next call. With
        `within_reserve`, False also where survivors would take more than `noise_bytes` of the reserve.
        """
        if name in self.staged.segments:
            return self._take_back(name)
        moving, staged = self.staged.moving, dataclasses.replace(self.staged, moving=None)
        assert moving is None or moving.name == name, "what the next commit cleans has to be settled first"
        content = moving or self._survivors(name, rebuild=rebuild)
        if content is None:
            return False
        self._fit_length(self._next_segment() + 1)
        opened = name == self.open_segment
        beside = not opened and self._fills_segment(content.rows)
        packed = self._pack(content.rows, closed=opened, beside=beside, most_segments=1)
        placed = packed.where != PENDING
        moved, where = content.rows.take(np.flatnonzero(placed)), packed.where[placed]
        state = self.state.with_era(self.state.era, packed.era)
        state, infos, gone, keys = self._buried(state, self.segments, name << 8 | content.places[placed], moved.sizes)
        if within_reserve:
            # Of a segment that is parted all that it will take counts: the last part gives it back.
            whole = packed.puts if name in gone else self._pack(content.rows, closed=opened).puts
            if self._takes_too_much(whole, {*keys, *self._keys([name])}):
                self.staged = staged
                return False

        def apply() -> None:
            self.catalog.move(moved.slots, where)
            self._enter(packed)
            self._bury(infos, gone)

        self._step(packed.puts, state, staged=staged, apply=apply, gone=keys)
        return True

    def clean_later(self, name: int, extra: Rows, need: int) -> bool:
        """Let the next commit clean a segment as it puts `extra`, in one step, if both fit into one segment.

        False if they do not, or if that would not give `need`. Its survivors are counted as if they waited, its bytes
        as if they were given back. Until then `settle` cleans it, which has to come before anything but a commit or a
        discard.
        """
        busy = self.staged.moving or self.staged.segments or self.state.wanted
        if busy or self.in_coming_era(self.state, self.coming_era(extra)[0]) is not self.state:
            return False
        frames = self._frame_bytes(self.state.eras[self.state.era].rows)  # there are two segments, it is one then
        if need > self.segments[name].dead_size * self.stored_share(name) + frames:
            return False
        content = self._survivors(name)
        if content is None:
            return False
        rows = self.state.eras[self.state.era].rows
        sizes = [*content.rows.sizes.tolist(), *self.staged.rows.sizes.tolist(), *extra.sizes.tolist()]
        if len(sizes) > rows or sum(sizes) > self.packing_target:
            return False
        self.staged = dataclasses.replace(self.staged, moving=content)
        return True

    def settle(self) -> None:
        """Clean now what the next commit would have cleaned."""
        if self.staged.moving is not None:
            self.clean(self.staged.moving.name)

    def _survivors(self, name: int, *, rebuild: bool = False) -> Moving | None:
        """Read what is alive of a committed segment; None, and it is damaged, if that cannot be read."""
        number, segment = divmod(name, 1 << 36)
        bits = self.state.eras[number].dead.get(segment, 0)
        alive = np.array([place for place in range(self.segments[name].rows) if not bits >> place & 1], np.int64)
        try:
            return Moving(name, alive, self._reader.segment(number, segment, self.state, alive, rebuild=rebuild))
        except CorruptExemplarError:
            self._damaged.add(name)
            return None

    def _fills_segment(self, rows: Rows) -> bool:
        """Whether next to nothing is lost if these fill a segment by themselves: the open one is not put again."""
        room = self.state.eras[self.state.era].rows
        empty = (room - len(rows)) * ENTRY_BYTES * len(self._layout.sharded)
        return 16 * len(rows) >= 15 * room and empty * _WASTED <= int(rows.sizes.sum())

    def _buried(
        self, state: State, known: Mapping[int, SegmentInfo], where: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> tuple[State, dict[int, SegmentInfo], list[int], list[str]]:
        """Mark rows as dead: the state after it, what changed of segments, which are gone, and the keys that go."""
        state, infos, gone = bury(state, known, where, sizes)
        state, emptied = drop_empty_eras(state, self._layout, self.staged.segments)
        return state, infos, gone, [*self._keys(gone), *emptied]

    def _takes_too_much(self, puts: Mapping[str, bytes], gone: Iterable[str]) -> bool:
        growth = sum(map(len, puts.values())) - sum(self._objects.sizes.get(key, 0) for key in {*puts, *gone})
        missing = self.used_bytes + growth + self.reserve() - self.state.budget_bytes
        return growth > 0 and missing > noise_bytes(self.state.target)

    def _take_back(self, name: int) -> bool:
        """Hold the survivors of a staged segment in RAM again, and delete it: nothing committed refers to it."""
        number, segment = divmod(name, 1 << 36)
        segments = dict(self.staged.segments)
        places = np.flatnonzero(segments.pop(name).alive)
        try:
            content = self._reader.segment(number, segment, self.state, places)
        except CorruptExemplarError:
            self._damaged.add(name)
            return False
        self.dirty = True
        self.staged = dataclasses.replace(self.staged, rows=self.staged.rows.joined(content), segments=segments)
        self.catalog.move(content.slots, np.full(len(content), PENDING))
        for key in self._keys([name]):
            self._delete(key)
        self.dirty = False
        return True

    def update(self, rows: Rows) -> None:
        """Put committed exemplars once more, changed, under their slots: a step."""
        slots = rows.slots.copy()
        where = self.catalog.where_at(self.catalog.find(slots))
        self._fit_length(self._next_segment() + len(rows) + 1)
        packed = self._pack_within(rows.named(slots, self.state.generation + 1))
        state = self.state.with_era(self.state.era, packed.era)
        known = {**self.segments, **self._with_old_dead(packed)}
        state, infos, gone, keys = self._buried(state, known, where, rows.sizes)
        state = dataclasses.replace(state, generation=state.generation + 1)

        def apply() -> None:
            self.catalog.move(slots, packed.where)
            self.catalog.prioritise(slots, rows.priorities)
            self._enter(packed)
            self._bury(infos, gone)

        self._step(packed.puts, state, apply=apply, gone=keys)

    def change_state(self, **changes: Any) -> None:
        """Put the document with other values: budget, charges, target, what is wanted, the state of a stream."""
        state, emptied = drop_empty_eras(dataclasses.replace(self.state, **changes), self._layout, self.staged.segments)
        self._step({}, state, gone=emptied)

    def drop_segments(self, names: Iterable[int]) -> None:
        """Leave out segments whose catalog is lost, and put metadata that is damaged again: a step."""
        restore_documents(self._objects, self._layout, self.state)
        state, gone = self.state, list(names)
        for name in gone:
            number, segment = divmod(name, 1 << 36)
            era = state.eras[number].with_segments(_NONE, np.array([segment]))
            if era.open == segment:
                era = dataclasses.replace(era, open=-1, open_rows=0)
            state = state.with_era(number, era)
        if gone:
            self._step({}, dataclasses.replace(state, generation=state.generation + 1), gone=self._keys(gone))
            self.damaged_chunks = {}

    def put_root(self, root: Root) -> None:
        """Put the metadata of the root."""
        self.dirty = True
        self._objects.check_lock()
        self._objects.put(ROOT_KEY, root_document(root))
        self._objects.flush()
        self.root = root
        self.dirty = False

    def stage_reservoir(self, reservoir: Mapping[str, Any]) -> None:
        """Let the next commit record the state of a stream."""
        self.staged = dataclasses.replace(self.staged, reservoir=dict(reservoir))
