"""A writer that is killed at random moments, and a repair that dies at every operation; see `tests.driver` for more."""

import itertools
import multiprocessing
import os
import random
import shutil
import time
from unittest import mock

import pytest

from exmem import ExemplarMemory
from exmem.memory.maintenance import check, repair
from tests.driver.faults import KILLED, WHENS, Fault, Watched, in_a_child, within_limit
from tests.exemplars import exemplar, folder_bytes, schema
from tests.store.killed_writer import write_until_killed

BUDGET = 60_000

pytestmark = pytest.mark.kills


def _die(*_):
    os._exit(KILLED)


def die_in_a_commit(folder, given):
    """A process adds these and dies after its segments were put, before the document."""

    def append():
        with ExemplarMemory.open(folder, "r+") as memory:
            memory.add(given)
            with mock.patch.object(memory._store.writer._objects, "commit", _die):
                memory.commit()

    assert in_a_child(append) == KILLED


def build(folder):
    """Eleven exemplars of about 4 kB."""
    given = [exemplar(seed, label=seed % 2, priority=-seed, kept=5) for seed in range(11)]
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes=BUDGET) as memory:
        assert -1 not in memory.add(given).slots
    return len(given)


@pytest.mark.parametrize("when", WHENS)
def test_a_repair_that_dies_anywhere_is_finished_by_the_next(tmp_path, when, one_in):
    whole = tmp_path / "whole"
    count = build(whole)
    damaged = min(whole.glob("e*/image/c.*"))
    data = bytearray(damaged.read_bytes())
    data[5] ^= 1
    damaged.write_bytes(data)
    [metadata] = whole.glob("e*/records/zarr.json")
    metadata.write_text("{}")
    bad = {slot for damage in check(whole) for slot in damage.slots}
    assert len(bad) == 1
    for number in one_in(3, itertools.count()):
        folder = tmp_path / f"at{number}"
        shutil.copytree(whole, folder)

        def act(folder=folder, number=number):
            with Watched(Fault("kill", number, when), within_limit(folder, lambda: BUDGET)):
                repair(folder)

        status = in_a_child(act)
        assert status in {0, KILLED}
        assert not repair(folder).left
        assert check(folder) == []
        with ExemplarMemory.open(folder) as memory:
            assert len(memory) == count - 1
            assert not bad & set(memory.slots.tolist())
            memory.read(memory.slots)
        if status == 0:
            break
        shutil.rmtree(folder)
    assert number > 2


def test_what_a_commit_left_in_the_open_segment_never_counts_however_often_recovery_dies(tmp_path):
    """The rows of a commit that did not happen lie in the open segment; later another segment is the open one."""
    first, left, more = (
        [exemplar(seed, label=seed % 2, priority=-seed, kept=1 + seed % 3) for seed in seeds]
        for seeds in (range(2), range(2, 4), range(4, 40))
    )
    whole = tmp_path / "whole"
    with ExemplarMemory.create(whole, schema=schema("lossless"), max_bytes="1MB") as memory:
        memory.add(first)

    die_in_a_commit(whole, left)
    for number in itertools.count():
        folder = tmp_path / f"at{number}"
        shutil.copytree(whole, folder)

        def recover(folder=folder, number=number):
            with Watched(Fault("kill", number, "after"), within_limit(folder, lambda: 10**6)):
                ExemplarMemory.open(folder, "r+")

        status = in_a_child(recover)
        with ExemplarMemory.open(folder, "r+") as memory:
            given = [0, 1, *memory.add(more).slots.tolist()]
        assert check(folder) == []
        with ExemplarMemory.open(folder) as memory:
            assert memory.slots.tolist() == given
            memory.read(memory.slots)
        if status == 0:
            break
        shutil.rmtree(folder)
    assert number > 4


def test_rows_that_are_damaged_in_the_open_segment_do_not_keep_what_a_commit_left(tmp_path):
    whole = tmp_path / "m"
    with ExemplarMemory.create(whole, schema=schema("lossless"), max_bytes="1MB") as memory:
        memory.add([exemplar(seed, kept=2) for seed in range(2)])

    die_in_a_commit(whole, [exemplar(2, kept=2)])
    [shard] = whole.glob("e*/image/c.*")
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with ExemplarMemory.open(whole, "r+") as memory:
        given = memory.add([exemplar(seed, kept=2) for seed in range(40)]).slots.tolist()
    with ExemplarMemory.open(whole) as memory:
        assert memory.slots.tolist() == [0, 1, *given]
        memory.read([1, *given])
    [damage] = check(whole)
    assert damage.slots == (0,)


@pytest.mark.slow
def test_a_writer_killed_at_random_moments_never_breaks_the_store_or_the_budget(tmp_path, request):
    kills = request.config.getoption("--kills")
    folder = tmp_path / "m"
    build(folder)
    rng = random.Random(0)
    sizes, generations = [], set()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.killed_writer"])
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
