"""Deciding what a memory keeps, and making room for it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exmem.errors import BudgetError, BudgetTooSmallError, ExemplarTooLargeError, FormatError, SchemaError
from exmem.memory.order import EvictionOrder, Offered
from exmem.memory.quota import Quota
from exmem.memory.reports import AddReport
from exmem.memory.reservoir import raised
from exmem.store import Rows, Store, Writer, least_budget
from exmem.store.format.root import Root
from exmem.store.format.state import State
from exmem.store.sizes import target_for

__all__ = ["Policy"]


class Policy:
    """Decides who comes and who goes, and carries it out; the order of eviction is made when it is needed first."""

    def __init__(self, store: Store, eviction: Literal["by_class", "by_priority"]) -> None:
        self._store = store
        self._by_class = eviction == "by_class"
        self._parsed: tuple[Root, Quota] | None = None
        self._coming: Root | None = None  # settings that are about to be put
        self._order: EvictionOrder | None = None
        self._order_quota = self.quota
        self._epoch = -1  # of the writer, when the order was made

    @property
    def quota(self) -> Quota:
        """How classes share, as the root says; FormatError if that is broken."""
        root = self._coming or self._store.root
        if self._parsed is None or self._parsed[0] is not root:
            try:
                self._parsed = root, Quota.from_json(root.settings["quota"])
            except (SchemaError, KeyError) as error:
                raise FormatError(f"{self._store.location}: the quota is broken ({error})") from error
        return self._parsed[1]

    def plan(self, offered: Rows) -> tuple[NDArray[np.int64], list[int]]:
        """Return the slots that would go and the indices of `offered` that would be turned down; changes nothing."""
        writer = self._writer()
        self._check_fits_alone(offered)
        need = writer.shortage(offered)
        if need > 0:
            need -= self.cleanable_bytes()
        return self._victims(need, offered, in_parts=False)

    def add(self, offered: Rows, *, stream: Mapping[str, Any] | None = None, arrivals: int = 0) -> AddReport:
        """Make room for exemplars as far as the order lets them in, and stage them.

        With them the state of a `stream` after so many `arrivals` more, of which these are those above its threshold.
        """
        writer = self._writer()
        if stream is not None:
            writer.stage_reservoir(stream)  # there has to be room for it, too
        self._check_fits_alone(offered)
        left = np.arange(len(offered))
        evicted: list[NDArray[np.int64]] = []
        priorities: list[NDArray[np.float64]] = []
        while True:
            rows = offered if len(left) == len(offered) else offered.take(left)
            need = writer.shortage(rows)
            if (need <= 0 and not self._surplus(len(rows))) or not (len(rows) or len(writer.catalog)):
                break
            self._check_foreign()
            if need > 0 and self._clean_one(rows, need):
                continue
            victims, down = self._victims(need, rows)
            if len(victims):
                evicted.append(victims)
                priorities.append(self.evict(victims, by_policy=True))
            left = np.delete(left, down)
        rows = offered if len(left) == len(offered) else offered.take(left)
        slots = np.full(len(offered), -1, np.int64)
        after = None
        if stream is not None:  # what went has raised the threshold of what is staged already
            after = {**(writer.staged.reservoir or stream), "seen": stream["seen"] + arrivals}
            after = raised(after, np.delete(offered.priorities, left).tolist())
        if len(rows):
            slots[left] = self._stage(rows, after)
        else:
            writer.settle()
            if after is not None:
                writer.stage_reservoir(after)
        none, no = np.zeros(0, np.int64), np.zeros(0)
        gone, ranks = np.concatenate([none, *evicted]), np.concatenate([no, *priorities])
        order = np.argsort(gone, kind="stable")
        return AddReport(slots, gone[order], ranks[order], int(rows.lengths.sum()))

    def make_room(self, *, root: Root | None = None, new_era: bool = False, **changes: Any) -> NDArray[np.int64]:
        """Evict and clean until a changed state, another root or era fit beside what is held; return what went."""
        writer, evicted = self._writer(), [np.zeros(0, np.int64)]
        while True:
            if not writer.has_segments:  # what waits can still get other segments for nothing
                writer.fit_era(None)
            need = writer.shortage(root=root, new_era=new_era, **changes)
            if need <= 0 and not self._surplus(0):
                break
            if need > 0 and self._clean_one():
                continue
            victims, _ = self._victims(need, None)
            if not len(victims):
                self._check_foreign()
                break
            evicted.append(victims)
            self.evict(victims, by_policy=True)
        return np.sort(np.concatenate(evicted))

    def change(self, what: str, **changes: Any) -> NDArray[np.int64]:
        """Change budget, charges, target or the most exemplars: evict until all fits, then have the document say so.

        What is wanted is recorded first, so that it is carried through after a crash. BudgetTooSmallError if it would
        not fit even without exemplars; nothing was changed then.
        """
        writer = self._writer()
        state = dataclasses.replace(writer.state, **changes)
        best = changes.get("target", target_for(state.budget_bytes))
        # Half or twice the best target does nearly as well; to lay out anew takes room for the metadata of another era.
        near = state.budget_bytes == writer.state.budget_bytes or best // 2 <= state.target <= 2 * best
        changes["target"] = state.target if near and self._least(state) <= state.budget_bytes else best
        state = dataclasses.replace(state, target=changes["target"])
        self._check_least(state, what)
        smaller = state.target < writer.state.target and writer.misfits(state.target)
        fits = writer.shortage(**changes) <= 0 and not smaller
        if fits and (state.max_exemplars is None or len(writer.catalog) <= state.max_exemplars):
            writer.change_state(**changes)
            return np.zeros(0, np.int64)
        self._check_least(dataclasses.replace(writer.state, wanted=changes), what)
        evicted = self.make_room(wanted=changes)  # what is wanted may be long
        writer.change_state(wanted=changes)
        return np.sort(np.concatenate([evicted, self.finish()]))

    def finish(self) -> NDArray[np.int64]:
        """Carry through what is wanted: now, or after a crash; return the slots that went."""
        writer = self._writer()
        if not writer.state.wanted:
            return np.zeros(0, np.int64)
        changes = {**writer.state.wanted, "wanted": None}
        gone = []
        if changes["target"] < writer.state.target:
            gone = self._move_into_smaller(dataclasses.replace(writer.state, **changes))
        gone.append(self.make_room(**changes))
        if not writer.has_segments or not len(writer.catalog):  # it costs nothing
            writer.fit_era(None)
        writer.change_state(**changes)
        return np.sort(np.concatenate(gone))

    def _move_into_smaller(self, state: State) -> list[NDArray[np.int64]]:
        """Evict what surely goes for a smaller target and lay the rest out anew; return what went.

        How much fits shows only in small segments: these have more frames, and the old ones more dead rows.
        """
        writer = self._writer()
        gone = [self._evict_most(state), self.make_room(new_era=True)]
        writer.fit_era(None)
        for name in writer.misfits(state.target):
            gone.append(self.make_room())
            while (name in writer.segments or name in writer.staged.segments) and writer.clean(name):
                pass
        writer.change_state()  # without old eras
        return gone

    def _evict_most(self, state: State) -> NDArray[np.int64]:
        """Evict by policy until what is held about fits into a store made for another state; return what went."""
        writer, evicted = self._writer(), [np.zeros(0, np.int64)]
        while (writer.held_bytes - (room := writer.room_anew(state))) * 32 > room and len(writer.catalog):
            # Half of it at a time, and none that may not have to go: the room is an estimate, better for what is left.
            victims, excess = [], writer.held_bytes - room
            left = excess
            for victim, size in self._front(None):
                if size > left or left < excess / 2:
                    break
                victims.append(victim)
                left -= size
            if not victims:
                break
            evicted.append(np.array(victims, np.int64))
            self.evict(evicted[-1], by_policy=True)
        return np.concatenate(evicted)

    def evict(self, slots: NDArray[np.int64], *, by_policy: bool = False) -> NDArray[np.float64]:
        """Evict exemplars and return their priorities; what goes by policy raises a stream's threshold in one step."""
        writer, catalog = self._writer(), self._store.catalog
        rows = catalog.find(slots)
        labels, priorities, sizes = catalog.labels_at(rows), catalog.priorities_at(rows), self._store.sizes(slots)
        states = {"staged_reservoir": writer.staged.reservoir, "reservoir": writer.state.reservoir} if by_policy else {}
        changes = {name: raised(state, priorities.tolist()) for name, state in states.items() if state is not None}
        order, self._order = self._order, None  # it is made again should evicting fail half way
        writer.evict(slots, **changes)
        if order is not None:
            order.remove(slots, labels, priorities, sizes)
            self._order = order
        return priorities

    def update(self, rows: Rows) -> NDArray[np.int64]:
        """Put committed exemplars once more, changed, in parts of a segment; return the slots that went for it."""
        target, evicted = self._writer().state.target, [np.zeros(0, np.int64)]
        parts = np.cumsum(rows.sizes) // target
        for number in np.unique(parts).tolist():
            evicted += self._update(rows.take(np.flatnonzero(parts == number)))
        return np.sort(np.concatenate(evicted))

    def _update(self, rows: Rows) -> list[NDArray[np.int64]]:
        writer, evicted = self._writer(), []
        while True:
            rows = rows.take(np.flatnonzero(writer.catalog.holds(rows.slots)))
            need = writer.shortage(rows)
            if need <= 0 or not len(rows):
                break
            self._check_foreign()
            if not self._clean_one():
                victims, _ = self._victims(need, None)
                evicted.append(victims)
                self.evict(victims, by_policy=True)
        if len(rows):
            self._order = None
            writer.update(rows)
        return evicted

    def put_settings(self, what: str, **changes: Any) -> NDArray[np.int64]:
        """Change settings in the root; return the slots that went to make room for them."""
        writer = self._writer()
        root = dataclasses.replace(writer.root, settings={**writer.root.settings, **changes})
        growth = writer.root_growth(root)
        state = writer.state
        self._check_least(dataclasses.replace(state, max_bytes=state.max_bytes - growth), what)
        self._coming = root  # who goes for it goes by what it says
        try:
            evicted = self.make_room(root=root) if growth else np.zeros(0, np.int64)
            writer.put_root(root)
        finally:
            self._coming = None
        return evicted

    def compact(self) -> None:
        """Clean whatever holds dead rows, and pack what is only half full or of an old era, where that has room."""
        writer = self._writer()
        for name in writer.staged_with_dead_rows():
            writer.clean(name)
            writer.stage(Rows.none(self._store.layout))  # what fills a segment waits no longer
        for name in sorted(writer.worth_packing()):
            while name in writer.segments and (writer.segments[name].dead_rows or writer.shortage() <= 0):
                if not writer.clean(name, within_reserve=True):
                    break

    def cleanable_bytes(self) -> int:
        """Return about the bytes that cleaning gives back."""
        writer = self._writer()
        return int(sum(writer.cleanable().values()) * writer.mean_share())

    def forget(self) -> None:
        """Make the order anew when it is needed next."""
        self._order = None

    def _stage(self, rows: Rows, reservoir: Mapping[str, Any] | None) -> NDArray[np.int64]:
        order, self._order = self._order, None
        slots = self._writer().stage(rows, reservoir=reservoir)
        if order is not None:
            order.add(slots, rows.labels, rows.priorities, rows.sizes)
            self._order = order
        return slots

    def _clean_one(self, coming: Rows | None = None, need: int = 0) -> bool:
        """Clean the segment with most dead bytes, of equal ones the oldest, else one of an old era: a step.

        Where what it gives is all that `coming` needs, the commit of these cleans it in the same step.
        """
        writer = self._writer()
        if writer.staged.moving is not None:  # it does not give enough
            return writer.clean(writer.staged.moving.name, within_reserve=True)
        while dead := writer.cleanable():
            name = min(dead, key=lambda name: (-dead[name], name))
            if coming is not None and not self._surplus(len(coming)) and writer.clean_later(name, coming, need):
                return True
            if writer.clean(name, within_reserve=True):
                return True
            if name in writer.cleanable():  # it can be read, and would take more than it gives
                return False
        return any(writer.clean(name) for name in writer.in_old_eras()[:1])

    def _victims(
        self, need: int, offered: Rows | None, *, in_parts: bool = True
    ) -> tuple[NDArray[np.int64], list[int]]:
        """Return the front of the order that gives so many bytes back: slots, and indices of `offered`."""
        share, offered_share = self._writer().mean_share(), 0.0
        surplus = self._surplus(0 if offered is None else len(offered))
        victims: list[int] = []
        down: list[int] = []
        dead: dict[int, tuple[int, int]] = {}  # segment -> rows and bytes of victims
        # What a victim gives back is an estimate; of much that is needed a part comes first, and is measured then.
        much = in_parts and need * 64 > self._writer().state.budget_bytes
        left = need * 15 / 16 if much else float(need)
        for victim, size in self._front(offered):
            if left <= 0 and len(victims) + len(down) >= surplus:
                break
            if victim < 0:
                if not down and offered is not None:
                    offered_share = self._writer().added_bytes(offered) / int(offered.sizes.sum())
                down.append(-1 - victim)
                left -= max(1.0, size * offered_share)
            else:
                victims.append(victim)
                left -= self._given_back(victim, size, share, dead)
        return np.sort(np.array(victims, np.int64)), sorted(down)

    def _front(self, offered: Rows | None) -> Iterator[tuple[int, int]]:
        writer, catalog = self._writer(), self._store.catalog
        if self._order is None or self._epoch != writer.epoch:
            self._order = EvictionOrder(
                catalog.slots,
                catalog.labels,
                catalog.priorities,
                self._store.sizes(),
                quota=self.quota,
                by_class=self._by_class,
            )
            self._epoch, self._order_quota = writer.epoch, self.quota
        if self._order_quota != self.quota:
            self._order_quota = self.quota
            self._order.set_quota(self.quota)

        def size_of(slot: int) -> int:
            return int(self._store.sizes(np.array([slot]))[0])

        coming = None if offered is None else Offered(offered.labels, offered.priorities, offered.sizes)
        return self._order.victims(size_of, coming)

    def _given_back(self, slot: int, size: int, share: float, dead: dict[int, tuple[int, int]]) -> float:
        """Return the bytes that can be had back once an exemplar dies: none before 1/32 of its segment is dead."""
        writer = self._writer()
        name = int(writer.catalog.where_at(writer.catalog.find(np.array([slot])))[0]) >> 8
        info = writer.info(name)
        if info is None:  # it waits in RAM
            return size * share + writer.document_share()
        rows, lost = dead.get(name, (0, 0))
        before = dataclasses.replace(info, dead_rows=info.dead_rows + rows, dead_size=info.dead_size + lost)
        dead[name] = rows + 1, lost + size
        after = dataclasses.replace(before, dead_rows=before.dead_rows + 1, dead_size=before.dead_size + size)
        if not writer.is_cleanable(after):
            return 0
        had = (before.dead_size, before.dead_rows) if writer.is_cleanable(before) and before.dead_rows else (0, 0)
        document = (after.dead_rows - had[1]) * writer.document_share()
        return (after.dead_size - had[0]) * writer.stored_share(name) + document

    def _surplus(self, coming: int) -> int:
        most = (self._writer().state.wanted or {}).get("max_exemplars", self._writer().state.max_exemplars)
        return 0 if most is None else max(0, len(self._store.catalog) + coming - most)

    def _check_fits_alone(self, offered: Rows) -> None:
        if not len(offered):
            return
        largest, budget = int(np.argmax(offered.sizes)), self._writer().state.budget_bytes
        alone = self._writer().needed_alone(offered.take([largest]))
        if alone > budget:
            raise ExemplarTooLargeError(
                f"exemplar {largest} of {int(offered.sizes[largest]):,} bytes needs a budget of {alone:,} bytes even "
                f"in an empty memory, {budget:,} are available; store fewer tokens of it, lower the quality, or "
                "raise max_bytes"
            )

    def _check_least(self, state: State, what: str) -> None:
        needed, foreign = self._least(state), self._writer().foreign_bytes
        if state.budget_bytes < needed:
            others = f", {foreign:,} of them for files that are not of this memory" if foreign else ""
            raise BudgetTooSmallError(
                f"{what}: {state.budget_bytes:,} bytes are left, an empty store of this schema needs {needed:,}"
                f"{others}; give at least {needed - state.budget_bytes:,} more; nothing was changed"
            )

    def _least(self, state: State) -> int:
        return least_budget(self._store.layout, self._writer().root, state) + self._writer().foreign_bytes

    def _check_foreign(self) -> None:
        """Refuse to evict for bytes that are none of this store's."""
        writer = self._writer()
        if writer.foreign_bytes and writer.shortage() > 0:
            raise BudgetError(
                f"{self._store.location}: {writer.foreign_bytes:,} bytes of files that are not of this memory fill its "
                "budget; remove them, or raise max_bytes"
            )

    def _writer(self) -> Writer:
        writer = self._store.writer
        assert writer is not None, "a memory that is open for reading changes nothing"
        return writer
