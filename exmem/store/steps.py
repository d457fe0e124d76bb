"""A step: objects are put, then the document, then the copy in RAM is changed; and what to do when that fails."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CorruptExemplarError, ReadOnlyError
from exmem.store.cleaning import Cleaning
from exmem.store.format.layout import Layout
from exmem.store.format.root import MOST_ROOT_BYTES, ROOT_KEY, Root, parse_root, root_document
from exmem.store.format.state import STATE_KEY, State
from exmem.store.loading import Loaded, SegmentInfo, load
from exmem.store.objects import BudgetedObjects
from exmem.store.packing import Packed, Tail, pack
from exmem.store.reader import Reader
from exmem.store.recovery import clear_leftovers, restore_documents, restore_open
from exmem.store.segments import Rows
from exmem.store.sizes import exemplar_bytes, least_length
from exmem.store.staging import Staged

__all__ = ["Steps"]


class Steps(Cleaning):
    """Takes steps, and recovers; the lock is held.

    What is committed is on the disk, what stands here is a copy of it: after any exception the writer is `dirty`, and
    `ready` reads it again and removes what is left over. `epoch` counts these recoveries.
    """

    def __init__(self, objects: BudgetedObjects, layout: Layout, root: Root, loaded: Loaded, reader: Reader) -> None:
        self._reader = reader
        self._pid = os.getpid()
        self.dirty: bool = False
        self.epoch: int = 0
        self._intended: tuple[int, Staged] | None = None  # revision of the step under way, and what is staged after it
        self._tail: Tail | None = None
        super().__init__(objects, layout, root, loaded)

    @property
    def is_owner(self) -> bool:
        """Whether this process is the one that opened the store."""
        return os.getpid() == self._pid

    def check_owner(self) -> None:
        """Raise ReadOnlyError in any process but the one that opened the store."""
        if not self.is_owner:
            raise ReadOnlyError(
                f"{self._objects.objects.location} was opened for writing by process {self._pid}, this is its child "
                f"{os.getpid()}: a writer is one process; open the memory here with mode 'r'"
            )

    def ready(self) -> None:
        """Be sure that this object may write and that its copy is right; recovers after an exception."""
        self.check_owner()
        if self.dirty:
            self.recover(unclean=True)

    def recover(self, *, unclean: bool, loaded: Loaded | None = None) -> None:
        """Read what is committed, remove what nothing refers to, and restore the open segment if need be."""
        self.dirty = True
        objects = self._objects.objects
        objects.check_lock()
        objects.clear_temporary()
        self.root = parse_root(objects.get(ROOT_KEY, limit=MOST_ROOT_BYTES) or b"", objects.location)
        self._reader.mapped.clear()
        self._tail = None
        self._damaged.clear()
        loaded = loaded or load(objects, self._layout)
        if self._intended is not None and loaded.state.revision >= self._intended[0]:
            self.staged = self._intended[1]
        self._intended = None
        self._objects.measure()
        clear_leftovers(self._objects, self._layout, loaded.state, self.staged)
        self._show(loaded)
        if unclean:
            restore_documents(self._objects, self._layout, loaded.state)
            restore_open(self._objects, self._reader, self._layout, loaded.state)
        if self.root.consolidated:
            self.root = dataclasses.replace(self.root, consolidated=False)
            self._objects.put(ROOT_KEY, root_document(self.root))
        self._objects.flush()
        self._count_foreign()
        self._raise_limit()
        self.epoch += 1
        self.dirty = False

    def _step(
        self,
        puts: Mapping[str, bytes],
        state: State,
        *,
        staged: Staged | None = None,
        apply: Callable[[], None] = lambda: None,
        gone: Iterable[str] = (),
    ) -> None:
        """Put objects, then the document, then change the copy in RAM, then delete what is no longer referred to."""
        state = dataclasses.replace(state, revision=self.state.revision + 1)
        after = self.staged if staged is None else staged
        self.dirty, self._intended = True, (state.revision, after)
        self._put(puts)
        self._objects.commit(STATE_KEY, state.document)
        self.state, self.staged = state, after
        apply()
        for key in gone:
            self._delete(key)
        if self._objects.limit > self.state.budget_bytes:
            self._raise_limit()
        self._objects.limit = max(self._objects.limit, self.state.budget_bytes)
        self.dirty, self._intended = False, None

    def _put(self, puts: Mapping[str, bytes]) -> None:
        self._objects.check_lock()  # names are given out again by whoever took it
        for key, data in puts.items():
            self._objects.put(key, data)
            self._reader.mapped.forget(key)

    def _delete(self, key: str) -> None:
        if key in self._objects.sizes:
            self._objects.delete(key)
            self._reader.mapped.forget(key)

    def _pack(
        self, rows: Rows, *, closed: bool = False, beside: bool = False, most_segments: int | None = None
    ) -> Packed:
        number = self.state.era
        return pack(
            rows,
            number,
            self.state.eras[number],
            None if closed else self._open_tail(),
            first=self._next_segment(),
            target=self.packing_target,
            most_segments=most_segments,
            beside=beside,
        )

    def _pack_within(self, rows: Rows, *, closed: bool = False, beside: bool = False) -> Packed:
        """Lay out exemplars for which there is room: in segments of their own if the open one compressed too badly."""
        packed = self._pack(rows, closed=closed, beside=beside)
        growth = sum(len(data) - self._objects.sizes.get(key, 0) for key, data in packed.puts.items())
        new = sum(name not in self.segments for name in packed.segments)
        free = self.state.budget_bytes - self.used_bytes + self._moving_bytes - self.reserve(new)
        return packed if growth <= free else self._pack(rows, closed=True)

    def _open_tail(self) -> Tail | None:
        if self.open_segment < 0 or self.open_segment in self._damaged:
            return None
        number, era = self.state.era, self.state.eras[self.state.era]
        if self._tail is None or self._tail.segment != era.open:
            try:
                rows = self._reader.segment(number, era.open, self.state)
            except CorruptExemplarError:  # what is damaged is not written again
                self._damaged.add(self.open_segment)
                return None
            self._tail = Tail(era.open, rows, int(rows.sizes.sum()))
        return self._tail

    def _next_segment(self) -> int:
        number = self.state.era
        return max(
            [self.state.eras[number].given, *(segment + 1 for segment in self._staged_numbers().get(number, ()))]
        )

    def _fit_length(self, segments: int) -> None:
        """Let the arrays of the era be long enough for so many segments: a step."""
        number = self.state.era
        era = self.state.eras[number]
        length = least_length(era.rows, segments)
        if length > era.length:
            documents = self._layout.era_documents(number, era.rows, length)
            self._step(documents, self.state.with_era(number, dataclasses.replace(era, length=length)))

    def _enter(self, packed: Packed) -> None:
        self.record(self._with_old_dead(packed))
        self._tail = packed.tail

    def _with_old_dead(self, packed: Packed) -> dict[int, SegmentInfo]:
        infos = {}
        for name, info in packed.segments.items():
            old = self.segments.get(name)
            dead = (0, 0) if old is None else (old.dead_rows, old.dead_size)
            infos[name] = dataclasses.replace(info, dead_rows=dead[0], dead_size=dead[1])
        return infos

    def _bury(self, infos: Mapping[int, SegmentInfo], gone: Iterable[int]) -> None:
        self.record({**infos, **dict.fromkeys(gone)})

    def _forget(self, slots: NDArray[np.int64]) -> None:
        self.held_bytes -= int(exemplar_bytes(self._layout, self.catalog.lengths_at(self.catalog.find(slots))).sum())
        self.catalog.remove(slots)

    def _keys(self, names: Iterable[int]) -> list[str]:
        return [key for name in names for key in self._layout.segment_keys(*divmod(name, 1 << 36))]
