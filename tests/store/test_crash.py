"""A writer that is killed at random moments, and a repair that dies at every operation; see `tests.driver` for more."""

import itertools
import multiprocessing
import random
import shutil
import time

import pytest

from exmem import ExemplarMemory
from exmem.memory.maintenance import check, repair
from tests.driver.faults import KILLED, WHENS, Fault, Watched, in_a_child, within_limit
from tests.exemplars import exemplar, folder_bytes, schema
from tests.store.killed_writer import write_until_killed

BUDGET = 60_000


def build(folder):
    """Eleven exemplars of about 4 kB."""
    given = [exemplar(seed, label=seed % 2, priority=-seed, kept=5) for seed in range(11)]
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes=BUDGET) as memory:
        assert -1 not in memory.add(given).slots
    return len(given)


@pytest.mark.parametrize("when", WHENS)
def test_a_repair_that_dies_anywhere_is_finished_by_the_next(tmp_path, when):
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
    for number in itertools.count():
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


def test_a_writer_killed_at_random_moments_never_breaks_the_store_or_the_budget(tmp_path, request):
    kills = int(request.config.getoption("--kills"))
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
