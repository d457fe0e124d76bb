"""One exemplar at a time at the brim: its commit cleans the segment that makes room for it, in the same step."""

import numpy as np
import pytest

from exmem import ExemplarMemory
from exmem.memory.maintenance import check
from exmem.store.objects import BudgetedObjects
from tests.driver.reserve import reserve_watched
from tests.exemplars import folder_bytes
from tests.store.made import BLOBS, blob, contents, full

BUDGET = 60_000


def at_the_brim(folder):
    """A full memory in which the next better exemplar displaces one."""
    return full(folder, BLOBS, lambda number: made(number, priority=number), max_bytes=BUDGET, batch=20)


def made(number, *, priority):
    """About 240 bytes."""
    return blob(160, seed=number, label=number % 3, priority=float(priority))


def add_one(memory, number):
    """Add the best so far, such that the commit that follows cleans; return its slot."""
    for turn in range(40):  # until the need is that of one exemplar
        report = memory.add([made(number + turn, priority=number + turn)])
        if memory._store.writer.staged.moving is not None:
            return int(report.slots[0])
        memory.commit()
    raise AssertionError("no commit came to clean")


def counted(monkeypatch):
    """Count puts, the commit points among them."""
    puts = []
    for name in ("put", "commit"):
        real = getattr(BudgetedObjects, name)

        def put(self, key, data, real=real):
            puts.append(key)
            real(self, key, data)

        monkeypatch.setattr(BudgetedObjects, name, put)
    return puts


def test_an_add_at_the_brim_is_five_puts_for_the_eviction_and_the_commit(tmp_path, monkeypatch):
    with at_the_brim(tmp_path / "m") as memory:
        puts, held = counted(monkeypatch), len(memory)
        for number in range(2 * 10**6, 2 * 10**6 + 200):
            assert memory.add([made(number, priority=number)]).slots[0] >= 0
            memory.commit()
        assert len(memory) >= 0.97 * held
        # Shard, records, catalog, document, before them the document of the eviction; now and then a cleaning besides.
        assert len(puts) <= 5.2 * 200
        assert folder_bytes(tmp_path / "m") <= BUDGET
    assert check(tmp_path / "m") == []


OPERATIONS = {
    "add": lambda memory: memory.add([made(7, priority=1e9)]),
    "add many": lambda memory: memory.add([made(7 + number, priority=1e9) for number in range(300)]),
    "plan": lambda memory: memory.plan_add([made(7, priority=1e9)]),
    "evict": lambda memory: memory.evict(memory.slots[::3]),
    "evict all": lambda memory: memory.evict(memory.slots),
    "evict class": lambda memory: memory.evict_class(0),
    "update": lambda memory: memory.update(memory.slots[:40], priority=[2e9] * 40),
    "update all": lambda memory: memory.update(memory.slots[:-1], priority=[2e9] * (len(memory) - 1)),
    "resize down": lambda memory: memory.resize(BUDGET // 2),
    "resize up": lambda memory: memory.resize(2 * BUDGET),
    "charge": lambda memory: memory.charge("means", 9_000),
    "weigh": lambda memory: memory.weigh({0: 2.0}),
    "annotate": lambda memory: memory.annotate(attrs={"run": "x" * 400}),
    "compact": lambda memory: memory.compact(),
    "limit": lambda memory: memory.resize(max_exemplars=len(memory) - 5),
    "read": lambda memory: memory.read(memory.slots),
    "nothing": lambda memory: None,
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("end", ["commit", "discard"])
def test_anything_may_come_between_the_add_and_its_commit(tmp_path, name, end):
    with reserve_watched(), at_the_brim(tmp_path / "m") as memory:
        slot = add_one(memory, 2 * 10**6)
        before = contents(memory)
        OPERATIONS[name](memory)
        getattr(memory, end)()
        now = contents(memory)
        assert {slot: now[slot][-1] for slot in now if slot in before} == {
            slot: before[slot][-1] for slot in now if slot in before
        }
        if name not in {"evict", "evict class", "add many"}:  # by which it may go
            commits = end == "commit" or name in {"update", "update all"}
            assert (slot in now) == (commits and name != "evict all")
        assert folder_bytes(tmp_path / "m") <= memory.max_bytes
        add_one(memory, 3 * 10**6) if name in {"read", "nothing", "weigh"} else memory.add([made(1, priority=3e9)])
    assert check(tmp_path / "m") == []


def test_a_plan_between_the_add_and_its_commit_puts_nothing(tmp_path, monkeypatch):
    with at_the_brim(tmp_path / "m") as memory:
        add_one(memory, 2 * 10**6)
        puts, used = counted(monkeypatch), memory.used_bytes
        plan = memory.plan_add([made(7, priority=1e9)])
        assert (puts, memory.used_bytes) == ([], used)
        report = memory.add([made(7, priority=1e9)])
        assert set(plan.victims) <= set(report.evicted)
        assert len(report.evicted) <= len(plan.victims) + 1


@pytest.mark.parametrize("name", ["commit", "evict", "resize down", "compact"])
def test_what_is_damaged_on_the_disk_after_it_was_read_to_be_moved_is_not_lost(tmp_path, name):
    with at_the_brim(tmp_path / "m") as memory:
        add_one(memory, 2 * 10**6)
        writer = memory._store.writer
        moving = writer.staged.moving
        for key in writer._keys([moving.name]):
            (tmp_path / "m" / key).write_bytes(b"damaged")
        if name != "commit":
            OPERATIONS[name](memory)
        memory.commit()
        held = set(memory.slots.tolist())
        memory.read(memory.slots)
        assert name != "commit" or set(moving.rows.slots.tolist()) <= held
    assert check(tmp_path / "m") == []


def test_an_interrupt_between_the_cleaning_that_is_planned_and_the_staging_costs_nothing(tmp_path, monkeypatch):
    with at_the_brim(tmp_path / "m") as memory:
        writer = memory._store.writer
        add_one(memory, 2 * 10**6)
        memory.commit()
        held = contents(memory)
        with monkeypatch.context() as patch:
            patch.setattr(type(writer), "stage", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            for turn in range(40):
                with pytest.raises(KeyboardInterrupt):
                    memory.add([made(3 * 10**6 + turn, priority=3 * 10**6 + turn)])
                if writer.staged.moving is not None:
                    break
        assert writer.staged.moving is not None
        memory.commit()
        assert writer.staged.moving is None
        left = contents(memory)
        assert left == {slot: held[slot] for slot in left}
        assert len(left) >= len(held) - 41
    assert check(tmp_path / "m") == []


@pytest.mark.slow
def test_exemplars_of_changing_sizes_are_cleaned_at_once_or_later_within_the_budget(tmp_path):
    sizes = np.random.default_rng(0).integers(16, 320, 800).tolist()

    def made(number):
        return blob(sizes[number], seed=number, label=number % 3, priority=float(number))

    with (
        reserve_watched(),
        ExemplarMemory.create(tmp_path / "m", schema=BLOBS, max_bytes=BUDGET, threads=1, durable=False) as memory,
    ):
        later = 0
        for number in range(800):
            memory.add([made(number)])
            later += memory._store.writer.staged.moving is not None
            memory.commit()
            assert folder_bytes(tmp_path / "m") <= BUDGET
        assert later > 20
        for slot in memory.slots.tolist():
            [read], expected = memory.read([slot]), made(slot).tokens["image"]
            np.testing.assert_array_equal(read.tokens["image"].values, expected.values)
    assert check(tmp_path / "m") == []
