"""Faults that earlier stores had, each kind with a test of its own: readers, rival writers, copies and interrupts."""

import contextlib
import copy
import itertools
import os
import pickle
import shutil
import time

import pytest

from exmem import ExemplarMemory
from exmem.errors import LockedError, ReadOnlyError, StaleSnapshotError
from exmem.memory.maintenance import check, compact
from tests.driver.faults import KILLED, Fault, Watched, in_a_child, within_limit
from tests.exemplars import folder_bytes
from tests.store.made import (
    NUMBERS,
    QUICK,
    assert_within,
    contents,
    full,
    numbered,
)


@pytest.fixture
def folder(tmp_path):
    """Some numbered exemplars in several segments, committed."""
    with ExemplarMemory.create(tmp_path / "m", schema=NUMBERS, max_bytes=100_000, **QUICK) as memory:
        memory.add([numbered(number, label=number % 4) for number in range(400)])
    return tmp_path / "m"


# A kill inside an eviction; the next writer recovers; an older reader reads.


def assert_right_or_stale(reader, held, gone):
    """What a reader's snapshot holds is read right; only what is evicted may be called stale."""
    for slot in held:
        try:
            batch = reader.read([slot])
        except StaleSnapshotError:
            assert slot in gone
            continue
        assert batch.tokens["t"].values[0].tolist() == [100 + slot] * 4
        assert batch.extras["e"].tolist() == [slot]
        assert batch.labels.tolist() == [slot % 4]


@pytest.mark.kills
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("part", [slice(0, 1), slice(0, 200), slice(0, None, 3), slice(None)], ids=repr)
def test_an_older_reader_never_reads_other_bytes_after_a_kill_and_a_recovery(tmp_path, folder, part, when, one_in):
    for number in one_in(6, itertools.count()):
        place = tmp_path / f"copy{number}"
        shutil.copytree(folder, place)
        reader = ExemplarMemory.open(place, threads=1)
        early = ExemplarMemory.open(place, threads=1)
        assert_right_or_stale(early, reader.slots.tolist()[::40], set())  # has files mapped

        def act(number=number, place=place):
            memory = ExemplarMemory.open(place, "r+", **QUICK)
            with Watched(Fault("kill", number, when)):
                memory.evict(memory.slots[part])
                memory.add([numbered(1000 + turn, label=3) for turn in range(50)])
                memory.commit()

        status = in_a_child(act)
        assert status in {0, KILLED}
        with ExemplarMemory.open(place, "r+", **QUICK) as memory:
            memory.add([numbered(2000 + turn, label=2) for turn in range(300)])
            memory.commit()
            memory.compact()
            gone = set(reader.slots.tolist()) - set(memory.slots.tolist())
        for old in (reader, early):
            assert_right_or_stale(old, old.slots.tolist()[::7], gone)
            old.refresh()
            assert not gone & set(old.slots.tolist())
            old.close()
        if status == 0:
            break
    assert number > 3


def test_a_reader_opened_before_a_compaction_keeps_its_exemplars(folder):
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        memory.evict(memory.slots[::2])
    reader, mapped = (ExemplarMemory.open(folder, threads=1) for _ in range(2))
    held = contents(mapped)
    report = compact(folder)
    assert report.after_bytes <= report.before_bytes
    assert report.after_bytes == folder_bytes(folder)
    for old in (reader, mapped):
        assert contents(old) == held
        old.refresh()
        assert contents(old) == held


def test_a_live_exemplar_that_is_moved_is_found_by_an_old_snapshot(folder):
    readers = [ExemplarMemory.open(folder, threads=1) for _ in range(3)]
    contents(readers[1])
    slots, seen = readers[0].slots, []
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        for turn in range(4):
            memory.evict(memory.slots[turn % 3 :: 3])
            memory.compact()
            kept = memory.slots.tolist()
            for reader in readers[:2]:
                assert_right_or_stale(reader, slots.tolist(), set(slots.tolist()) - set(kept))
            seen.append(len(kept))
        changed = memory.slots[:5]
        memory.update(changed, priority=[7.0] * 5)
        for reader in readers:
            assert_right_or_stale(reader, memory.slots.tolist(), set(changed.tolist()))
    assert seen == sorted(seen, reverse=True)


# Sizes are measured once the lock is held; two openers.


def test_writers_that_open_in_turn_or_at_once_never_exceed_the_budget(tmp_path):
    folder, budget = tmp_path / "m", 90_000
    ExemplarMemory.create(folder, schema=NUMBERS, max_bytes=budget, **QUICK).close()

    def write(seed):
        wins, end = 0, time.monotonic() + 30
        while wins < 6 and time.monotonic() < end:
            try:
                memory = ExemplarMemory.open(folder, "r+", **QUICK)
            except LockedError:
                continue
            with memory:
                first = memory.next_slot
                memory.add([numbered(seed * 1000 + turn, label=seed, priority=wins) for turn in range(700)])
                assert memory.next_slot >= first
            wins += 1
        assert wins == 6

    children = []
    for seed in range(3):
        child = os.fork()
        if child == 0:
            os._exit(in_a_child(lambda seed=seed: write(seed)))
        children.append(child)
    most, running = 0, set(children)
    while running:
        with contextlib.suppress(FileNotFoundError):
            most = max(most, folder_bytes(folder))
        for child in [*running]:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                running.discard(child)
                assert status == 0
    # Looking from outside while files come and go may count one twice; a segment is below 2 kB here.
    assert most <= budget + 2_000
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert_within(memory, folder)
    assert check(folder) == []


# Copies of a writer.


def changes(memory):
    return {
        "add": lambda: memory.add([numbered(7)]),
        "add nothing": lambda: memory.add([]),
        "evict": lambda: memory.evict(memory.slots[:1]),
        "evict_class": lambda: memory.evict_class(1),
        "commit": memory.commit,
        "discard": memory.discard,
        "resize": lambda: memory.resize(90_000),
        "charge": lambda: memory.charge("means", 5),
        "weigh": lambda: memory.weigh({1: 2.0}),
        "annotate": lambda: memory.annotate(attrs={"a": 1}),
        "update": lambda: memory.update(memory.slots[:1], priority=3.0),
        "compact": memory.compact,
        "plan_add": lambda: memory.plan_add([numbered(7)]),
    }


def assert_no_writer(memory):
    for name, act in changes(memory).items():
        try:
            act()
        except ReadOnlyError:
            continue
        pytest.fail(f"{name} went through")


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_a_copy_of_a_writer_is_a_reader_and_the_writer_goes_on(folder, how):
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        memory.add([numbered(1000, label=1)])
        makers = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}
        other = makers[how](memory)
        assert len(other) == 400
        assert_no_writer(other)
        assert contents(other) == contents(ExemplarMemory.open(folder, threads=1))
        other.close()
        del other
        memory.add([numbered(1001, label=1)])
        memory.commit()
        assert len(memory) == 402
    assert len(ExemplarMemory.open(folder)) == 402
    assert check(folder) == []


@pytest.mark.parametrize("closes", [False, True])
def test_a_forked_child_of_a_writer_cannot_write_and_does_not_give_the_lock_away(folder, closes):
    memory = ExemplarMemory.open(folder, "r+", **QUICK)
    memory.add([numbered(1000, label=1)])

    def act():
        assert_no_writer(memory)
        assert len(memory.read([0, 1])) == 2
        if closes:
            memory.close()

    assert in_a_child(act) == 0
    with pytest.raises(LockedError):
        ExemplarMemory.open(folder, "r+")
    memory.commit()
    memory.close()
    assert len(ExemplarMemory.open(folder)) == 401
    assert check(folder) == []


def test_a_forked_child_that_outlives_the_writer_does_not_hold_the_lock(folder):
    memory = ExemplarMemory.open(folder, "r+", **QUICK)
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(start)
        os.read(end, 1)
        os._exit(0)
    os.close(end)
    try:
        memory.close()
        ExemplarMemory.open(folder, "r+", **QUICK).close()
    finally:
        os.close(start)
        os.waitpid(child, 0)


# Ctrl-C between a rename and its record, or anywhere else.


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_the_books_are_right_after_an_interrupt_at_any_operation(tmp_path, when, one_in):
    folder, budget = tmp_path / "m", 40_000
    with full(folder, NUMBERS, lambda n: numbered(n, label=n % 4), max_bytes=budget, batch=100) as memory:
        met = 0
        for number in one_in(2, range(60)):
            new = [numbered(5000 + turn, label=5, priority=float(number)) for turn in range(60)]
            watched = Watched(Fault("KeyboardInterrupt", number, when), within_limit(folder, lambda: budget))
            with watched, contextlib.suppress(KeyboardInterrupt):
                memory.add(new)
                memory.commit()
                memory.evict(memory.slots[:3])
            met += watched.hit
            memory.commit()
            assert_within(memory, folder)
            assert memory.used_bytes > 0.75 * budget  # a fifth of so small a budget is the reserve
        assert met > 10
        held = contents(memory)
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert contents(memory) == held
    assert check(folder) == []
