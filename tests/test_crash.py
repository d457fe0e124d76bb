"""Fail at every operation in turn, and kill at random moments: the state is before or after, never over the budget."""

import contextlib
import json
import multiprocessing
import random
import shutil
import time

import pytest

from exmem import ExemplarMemory
from exmem.errors import StoreNotFoundError
from exmem.upkeep import check, repair
from tests.exemplars import assert_same, exemplar, folder_bytes, schema
from tests.faulty import Crash, Crashing
from tests.killed_writer import write_until_killed

BUDGET = 60_000
OLD = {seed: exemplar(seed, label=seed % 2, priority=-seed, kept=5) for seed in range(11)}
NEW = [exemplar(seed, label=2, priority=-seed, kept=5) for seed in range(20, 24)]


def build(folder):
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes=BUDGET) as memory:
        slots = memory.add([*OLD.values()]).slots.tolist()
        assert -1 not in slots
    return dict(zip(slots, OLD.values(), strict=True))


def act_add(memory):
    memory.add(NEW[:1])
    memory.commit()


def act_add_evicting(memory):
    assert len(memory.add(NEW).evicted)
    memory.commit()


def act_evict(memory):
    memory.evict(memory.slots[1::2])


def act_resize(memory):
    assert len(memory.resize(35_000))


def act_charge(memory):
    assert len(memory.charge("means", 25_000))


def act_weigh(memory):
    assert len(memory.weigh(dict.fromkeys(range(1000), 2.5)))


def act_discard(memory):
    memory.add(NEW)
    memory.discard()


ACTIONS = [act_add, act_add_evicting, act_evict, act_resize, act_charge, act_weigh, act_discard]


def states(folder, action):
    """The contents that are allowed after a crash: before, after the eviction, after."""
    held = build(folder)
    with ExemplarMemory.open(folder, mode="r+") as memory:
        before = frozenset(memory.slots.tolist())
        action(memory)
        after = frozenset(memory.slots.tolist())
        held |= {slot: memory.read([slot]).exemplar(0) for slot in after - before}
    return held, {before, before & after, after}


@pytest.mark.parametrize("when", ["before", "middle", "after"])
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__[4:])
def test_a_crash_at_any_operation_leaves_the_state_before_or_after(tmp_path, monkeypatch, action, when):
    held, allowed = states(tmp_path / "reference", action)
    at, seen = 0, set()
    while True:
        folder, grave = tmp_path / f"at{at}", tmp_path / f"grave{at}"
        build(folder)
        with monkeypatch.context() as patch:
            crashing = Crashing(patch, folder, grave, at=at, when=when, max_bytes=BUDGET)
            try:
                with ExemplarMemory.open(folder, mode="r+") as memory:
                    action(memory)
            except Crash:
                pass
        if crashing.dead:
            seen.add(check_recovered(grave, held, allowed))
        elif crashing.count <= at:
            break
        at += 1  # a deletion has no middle: nothing died there
    assert at >= 3
    assert when == "middle" or len(seen) >= min(2, len(allowed)), "never before, or never after, the commit"


def check_recovered(grave, held, allowed):
    """Reading shows an allowed state; opening for writing removes every leftover; all still reads right."""
    reader = ExemplarMemory.open(grave)
    state = frozenset(reader.slots.tolist())
    assert state in allowed
    lock = grave / "lock" / "zarr.json"
    if lock.exists():  # the crash was made up: this process still lives, the one that held the lock must not
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"process_start": "0"}))
    with ExemplarMemory.open(grave, mode="r+") as memory:
        assert frozenset(memory.slots.tolist()) == state
        for slot in state:
            assert_same(memory.read([slot]).exemplar(0), held[slot])
        memory.evict(memory.slots)
    left = sorted(path.relative_to(grave).as_posix() for path in grave.rglob("*") if path.is_file())
    assert all(name.endswith("zarr.json") for name in left), f"orphans survived: {left}"
    return state


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_a_crash_while_creating_leaves_no_store_or_a_whole_one(tmp_path, monkeypatch, when):
    at, found = 0, set()
    while True:
        folder, grave = tmp_path / f"at{at}", tmp_path / f"grave{at}"
        with monkeypatch.context() as patch:
            crashing = Crashing(patch, folder, grave, at=at, when=when, max_bytes=BUDGET)
            with contextlib.suppress(Crash):
                ExemplarMemory.create(folder, schema=schema(), max_bytes=BUDGET).close()
        at += 1
        if not crashing.dead:
            if crashing.count < at:
                break
            continue
        lock = grave / "lock" / "zarr.json"
        if lock.exists():
            lock.write_text(json.dumps(json.loads(lock.read_text()) | {"process_start": "0"}))
        try:
            with ExemplarMemory.open(grave, mode="r+") as memory:
                memory.add([exemplar(0)])
            found.add("whole")
        except StoreNotFoundError:
            ExemplarMemory.create(grave, schema=schema(), max_bytes=BUDGET).close()
            found.add("none")
    assert found == ({"none"} if when == "middle" else {"none", "whole"})


@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_a_repair_that_crashes_is_finished_by_the_next(tmp_path, monkeypatch, when):
    whole = tmp_path / "whole"
    build(whole)
    damaged = sorted((whole / "image" / "values").glob("c.*"))[0]
    data = bytearray(damaged.read_bytes())
    data[5] ^= 1
    damaged.write_bytes(bytes(data))
    (whole / "text" / "keep" / "zarr.json").write_text("{}")
    bad = {slot for damage in check(whole) for slot in damage.slots}
    assert len(bad) == 1
    at, died = 0, 0
    while True:
        folder, grave = tmp_path / f"at{at}", tmp_path / f"grave{at}"
        shutil.copytree(whole, folder)
        with monkeypatch.context() as patch:
            crashing = Crashing(patch, folder, grave, at=at, when=when, max_bytes=BUDGET)
            with contextlib.suppress(Crash):
                repair(folder)
        if crashing.dead:
            died += 1
            lock = grave / "lock" / "zarr.json"
            if lock.exists():
                lock.unlink()
            assert not repair(grave).left
            assert check(grave) == []
            with ExemplarMemory.open(grave) as memory:
                assert len(memory) == len(OLD) - 1
                assert not bad & set(memory.slots.tolist())
        elif crashing.count <= at:
            break
        at += 1
    assert died > 2


def test_a_writer_killed_at_random_moments_never_breaks_the_store_or_the_budget(tmp_path, request):
    kills = int(request.config.getoption("--kills"))
    folder = tmp_path / "m"
    build(folder)
    rng = random.Random(0)
    sizes, generations = [], set()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.killed_writer"])
    for kill in range(kills):
        opened = context.Event()
        writer = context.Process(target=write_until_killed, args=(str(folder), kill, BUDGET, opened))
        writer.start()
        assert opened.wait(60)
        end = time.monotonic() + rng.uniform(0.0, 0.12)
        while time.monotonic() < end:
            sizes.append(watch(folder))
        assert writer.is_alive(), "the writer failed by itself"
        writer.kill()
        writer.join()
        assert folder_bytes(folder) <= BUDGET
        reader = ExemplarMemory.open(folder, threads=1)
        batch = reader.read(reader.slots)  # every byte is checked
        assert len(batch) == len(reader)
        generations.add(reader.generation)
        reader.close()
    assert max(sizes) <= BUDGET
    assert len(generations) > kills // 2, "the writers did nothing"
    with ExemplarMemory.open(folder, mode="r+") as memory:
        assert memory.used_bytes == folder_bytes(folder)
    assert check(folder) == []


def watch(folder):
    """The folder's bytes from outside; files come and go meanwhile, so a sum can mix two instants: take the lower."""
    found = []
    while len(found) < 2:
        try:
            found.append(folder_bytes(folder))
        except FileNotFoundError:
            continue
    return min(found)
