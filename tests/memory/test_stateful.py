"""The memory against a dictionary, under random operations."""

import dataclasses
import gc
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exmem import ExemplarMemory
from exmem.errors import BudgetTooSmallError, ExemplarTooLargeError, StaleSnapshotError
from exmem.memory.maintenance import check
from exmem.memory.quota import Quota
from tests.exemplars import assert_same, exemplar, folder_bytes, schema

POOL = [exemplar(seed, label=seed % 5, priority=(seed * 13) % 17, kept=1 + seed % 8) for seed in range(40)]


class MemoryMachine(RuleBasedStateMachine):
    """What was committed and not evicted is there bit for bit; the folder never exceeds the budget."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.committed, self.staged, self.seen, self.reader = {}, {}, {}, None

    @initialize(max_bytes=st.integers(30_000, 90_000), quota=st.sampled_from(["bytes", "counts"]))
    def create(self, max_bytes, quota):
        options = {"schema": schema("lossless"), "max_bytes": max_bytes, "quota": quota}
        self.memory = ExemplarMemory.create(self.folder / "m", **options, durable=False, threads=1)
        self.quota = Quota(unit=quota)

    @rule(picks=st.lists(st.integers(0, len(POOL) - 1), max_size=8))
    def add(self, picks):
        before = set(self.memory.slots.tolist())
        try:
            plan = self.memory.plan_add([POOL[pick] for pick in picks])
        except ExemplarTooLargeError:
            assert self.memory.max_bytes - sum(self.memory.charges.values()) < 15_000
            return
        first = self.memory.next_slot
        report = self.memory.add([POOL[pick] for pick in picks])
        assert set(plan.victims.tolist()) <= set(report.evicted.tolist())
        assert set(report.evicted.tolist()) <= before
        self.forget(report.evicted)
        new = {slot: POOL[pick] for slot, pick in zip(report.slots.tolist(), picks, strict=True) if slot >= 0}
        assert not new or min(new) >= first, "a slot was given out twice"
        self.staged |= new

    @rule()
    def commit(self):
        self.memory.commit()
        self.keep()

    @rule()
    def discard(self):
        self.memory.discard()
        self.staged = {}

    @precondition(lambda self: self.committed or self.staged)
    @rule(data=st.data())
    def evict(self, data):
        victims = data.draw(st.lists(st.sampled_from(sorted(self.committed | self.staged)), max_size=5))
        self.memory.evict(victims)
        self.forget(victims)

    @rule(max_bytes=st.integers(4_000, 120_000), segment_bytes=st.sampled_from([None, None, 1024, 3_000, 20_000]))
    def resize(self, max_bytes, segment_bytes):
        try:
            self.forget(self.memory.resize(max_bytes, segment_bytes=segment_bytes))
        except BudgetTooSmallError:
            assert max_bytes - sum(self.memory.charges.values()) < 6_500 + 3 * (segment_bytes or 0)

    @rule(nbytes=st.integers(0, 30_000))
    def charge(self, nbytes):
        try:
            self.forget(self.memory.charge("means", nbytes))
        except BudgetTooSmallError:
            assert self.memory.max_bytes - nbytes < 6_500

    @rule(weights=st.dictionaries(st.integers(0, 4), st.sampled_from([0.5, 1, 2, 7]), max_size=5))
    def weigh(self, weights):
        try:
            self.forget(self.memory.weigh(weights))
        except BudgetTooSmallError:
            assert self.memory.max_bytes - sum(self.memory.charges.values()) < 6_500
            return
        self.quota = Quota(unit=self.quota.unit, weights={**self.quota.weights, **weights})

    @rule(crash=st.booleans())
    def reopen(self, crash):
        if crash:  # a writer that is forgotten is one that died: what is staged is lost, its segments are leftovers
            self.memory = None
            gc.collect()
            self.staged = {}
        else:
            self.memory.close()
            self.keep()
        self.memory = ExemplarMemory.open(self.folder / "m", mode="r+", durable=False, threads=1)

    @rule()
    def look(self):
        """A reader of another process sees what is committed, and that only."""
        if self.reader is None:
            self.reader = ExemplarMemory.open(self.folder / "m", threads=1)
        self.reader.refresh()
        self.seen = dict(self.committed)
        assert self.reader.slots.tolist() == sorted(self.committed)
        for found, slot in zip(self.reader.read(self.reader.slots), sorted(self.committed), strict=True):
            assert_same(found, self.committed[slot])

    @precondition(lambda self: self.reader is not None and len(self.reader))
    @rule(data=st.data())
    def look_without_refreshing(self, data):
        """An old snapshot is read right, or is told to be old."""
        slot = data.draw(st.sampled_from(self.reader.slots.tolist()))
        try:
            found = self.reader.read([slot]).exemplar(0)
        except StaleSnapshotError:
            assert self.committed.get(slot) is not self.seen[slot]
            return
        assert_same(found, self.seen[slot])

    @precondition(lambda self: self.committed or self.staged)
    @rule(data=st.data())
    def read(self, data):
        held = self.committed | self.staged
        slots = data.draw(st.lists(st.sampled_from(sorted(held)), min_size=1, max_size=6))
        for found, slot in zip(self.memory.read(slots), slots, strict=True):
            assert_same(found, held[slot])

    @precondition(lambda self: self.committed or self.staged)
    @rule(data=st.data(), priority=st.integers(-5, 20))
    def update(self, data, priority):
        slots = data.draw(st.lists(st.sampled_from(sorted(self.committed | self.staged)), max_size=5, unique=True))
        gone = self.memory.update(slots, priority=priority)
        self.keep()
        self.committed |= {slot: dataclasses.replace(self.committed[slot], priority=priority) for slot in slots}
        self.forget(gone)

    @rule()
    def renew(self):
        self.memory.renew()

    @rule()
    def compact(self):
        assert self.memory.compact().after_bytes <= self.memory.max_bytes

    @invariant()
    def budget_holds(self):
        if hasattr(self, "memory"):
            used = folder_bytes(self.folder / "m")
            assert used + sum(self.memory.charges.values()) <= self.memory.max_bytes
            if not self.staged:
                assert self.memory.used_bytes == used + sum(self.memory.charges.values())

    @invariant()
    def the_quota_holds(self):
        if hasattr(self, "memory"):
            assert self.memory.quota == self.quota

    @invariant()
    def slots_and_labels_agree(self):
        if hasattr(self, "memory"):
            held = self.committed | self.staged
            assert self.memory.slots.tolist() == sorted(held)
            assert self.memory.labels.tolist() == [held[slot].label for slot in sorted(held)]

    def teardown(self):
        if hasattr(self, "memory"):
            self.memory.close()
            assert check(self.folder / "m", threads=1) == []
            final = ExemplarMemory.open(self.folder / "m", threads=1)
            held = self.committed | self.staged
            np.testing.assert_array_equal(final.slots, sorted(held))
            for found, slot in zip(final.read(final.slots), sorted(held), strict=True):
                assert_same(found, held[slot])
        shutil.rmtree(self.folder)

    def keep(self):
        self.committed |= self.staged
        self.staged = {}

    def forget(self, slots):
        for slot in np.asarray(slots).tolist():
            self.committed.pop(slot, None)
            self.staged.pop(slot, None)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=settings.default.max_examples // 2)
