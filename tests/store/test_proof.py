"""Long and hard uses of a memory, and what is promised of them."""

import contextlib
import itertools
import json
import os
import shutil
import time

import numpy as np
import pytest

from exmem import ExemplarMemory
from exmem.errors import ExmemError, StaleSnapshotError
from exmem.memory.maintenance import check
from tests.driver.faults import KILLED, Fault, Watched, in_a_child, within_limit
from tests.driver.schemas import case_named, known
from tests.exemplars import folder_bytes
from tests.store.made import (
    BLOBS,
    NUMBERS,
    QUICK,
    TEXT,
    VECTORS,
    assert_within,
    blob,
    contents,
    full,
    numbered,
    text,
    vectors,
)

pytestmark = [pytest.mark.proof, pytest.mark.kills, pytest.mark.slow]


@pytest.fixture
def many(request):
    """How many exemplars make a large memory: 10^5 in the exhaustive form."""
    return 100_000 if request.config.getoption("--exhaustive") else 8_000


def test_half_of_very_many_evicted_at_the_brim_is_one_commit_also_when_killed_at_each_operation(tmp_path, many):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=TEXT, max_bytes=60 * many, **QUICK) as memory:
        memory.add([text(number, label=number % 97) for number in range(many)])
        memory.commit()
        memory.resize(memory.max_bytes - memory.free_bytes)
        before, limit = memory.slots, memory.max_bytes
    half = before[np.random.default_rng(0).random(len(before)) < 0.5]
    after = np.setdiff1d(before, half).tolist()
    gone = False
    for number in itertools.count():
        if gone:
            break

        def act(number=number):
            memory = ExemplarMemory.open(folder, "r+", **QUICK)
            with Watched(Fault("kill", number, "after"), within_limit(folder, lambda: limit)):
                memory.evict(half)

        assert in_a_child(act) in {0, KILLED}
        with ExemplarMemory.open(folder, threads=1) as reader:
            gone = len(reader) != len(before)
            assert reader.slots.tolist() == (after if gone else before.tolist())
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert_within(memory, folder)
        memory.add([text(number, label=200, priority=1.0) for number in range(many // 4)])
        assert (memory.labels == 200).sum() == many // 4
    assert check(folder) == []


def test_tiny_exemplars_and_thirds_of_the_budget_in_turn_both_find_room(tmp_path):
    folder, budget = tmp_path / "m", 150_000
    with ExemplarMemory.create(folder, schema=BLOBS, max_bytes=budget, **QUICK) as memory:
        with Watched(None, within_limit(folder, lambda: budget)):
            for turn in range(12):
                tiny = [blob(16, seed=seed, label=seed % 5, priority=float(turn)) for seed in range(200)]
                huge = blob(budget // 3, seed=turn, label=7, priority=float(turn))
                assert (memory.add(tiny).slots >= 0).all()
                assert memory.add([huge]).slots[0] >= 0
                if turn % 3:
                    memory.commit()
        memory.commit()
        labels = memory.labels.tolist()
        assert labels.count(7) >= 1
        assert len(labels) - labels.count(7) >= 200
        assert memory.used_bytes > 0.6 * budget
    assert check(folder) == []


@pytest.mark.parametrize("rising", [True, False])
def test_sizes_that_drift_a_hundredfold_leave_no_room_unused(tmp_path, rising):
    folder, budget = tmp_path / "m", 200_000
    sizes = [round(160 * 100 ** (number / 39)) for number in range(40)]
    with ExemplarMemory.create(folder, schema=BLOBS, max_bytes=budget, eviction="by_priority", **QUICK) as memory:
        for turn, nbytes in enumerate(sizes if rising else sizes[::-1]):
            count = max(4, 30_000 // nbytes)
            memory.add([blob(nbytes, seed=turn * 999 + n, priority=float(turn)) for n in range(count)])
            memory.commit()
            assert_within(memory, folder)
            if turn > 12:
                assert memory.free_bytes < 2 * 16_000 + budget // 16
        held = int(memory.sizes.sum())
        assert held > 0.75 * budget, f"{held:,} bytes of exemplars in {budget:,}"


def test_a_budget_may_go_far_down_and_up_again(tmp_path, request):
    top = 64_000_000 if request.config.getoption("--exhaustive") else 8_000_000
    folder = tmp_path / "m"
    made = [vectors(1000, seed=turn) for turn in range(top // 64_000)]
    with ExemplarMemory.create(folder, schema=VECTORS, max_bytes=top, **QUICK) as memory:
        for some in made:
            memory.add(some)
        memory.commit()
        large = len(memory)
        with Watched(None, within_limit(folder, lambda: top)):
            memory.resize(250_000)
        assert_within(memory, folder)
        small, held = len(memory), contents(memory)
        memory.resize(top)
        assert contents(memory) == held
        for some in made:
            memory.add(some)
        memory.commit()
        assert_within(memory, folder)
        assert len(memory) >= 0.97 * min(large, 1000 * (top // 64_000))
        memory.resize(250_000)
        assert abs(len(memory) - small) <= max(2, 0.03 * small)
    with ExemplarMemory.create(tmp_path / "fresh", schema=VECTORS, max_bytes=250_000, **QUICK) as fresh:
        for some in made[:20]:
            fresh.add(some)
        assert abs(len(fresh) - small) <= max(2, 0.03 * len(fresh)), (small, len(fresh))
    assert check(folder) == []


def test_a_charge_evicts_as_a_resize_by_as_much_does(tmp_path):
    left = {}
    for name in ("charge", "resize"):
        folder = tmp_path / name
        with ExemplarMemory.create(folder, schema=VECTORS, max_bytes=400_000, **QUICK) as memory:
            for turn in range(20):
                memory.add(vectors(500, seed=turn))
                memory.commit()
            with Watched(None, within_limit(folder, lambda: 400_000)):
                gone = memory.charge("means", 250_000) if name == "charge" else memory.resize(150_000)
            assert len(gone)
            assert_within(memory, folder)
            left[name] = set(memory.slots.tolist())
            assert memory.charge("means", 0).tolist() == []
    assert abs(len(left["charge"]) - len(left["resize"])) <= max(2, 0.03 * len(left["resize"]))
    assert left["charge"] <= left["resize"] or left["resize"] <= left["charge"]


# Foreign files.


def test_a_store_over_its_budget_by_files_of_others_opens_and_says_so_and_recovers_when_they_go(tmp_path):
    folder = tmp_path / "m"
    with full(folder, NUMBERS, lambda n: numbered(n, label=n % 4), max_bytes=60_000, batch=100) as memory:
        held = contents(memory)
    foreign = folder / "notes" / "thumbnail.png"
    foreign.parent.mkdir()
    foreign.write_bytes(bytes(40_000))
    with ExemplarMemory.open(folder, threads=1) as reader:
        assert contents(reader) == held
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert set(memory.slots.tolist()) <= set(held)
        with contextlib.suppress(ExmemError):
            memory.add([numbered(9000, label=1, priority=5.0)])
            memory.commit()
        memory.evict(memory.slots[:5])
    assert foreign.stat().st_size == 40_000
    foreign.unlink()
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        for slot, found in contents(memory).items():
            assert found == held.get(slot, found)
        assert (memory.add([numbered(9001, label=1, priority=6.0)]).slots >= 0).all()
        memory.commit()
        assert_within(memory, folder)
    assert check(folder) == []


# Readers beside a writer.


def test_a_store_made_anew_under_an_open_reader_is_never_read_as_the_old_one(tmp_path):
    folder = tmp_path / "m"
    for first, second in ((300, 300), (300, 20), (20, 300)):
        with ExemplarMemory.create(folder, schema=NUMBERS, max_bytes=100_000, **QUICK) as memory:
            memory.add([numbered(number) for number in range(first)])
        untouched, mapped = (ExemplarMemory.open(folder, threads=1) for _ in range(2))
        contents(mapped)
        shutil.rmtree(folder)
        with ExemplarMemory.create(folder, schema=NUMBERS, max_bytes=100_000, **QUICK) as memory:
            memory.add([numbered(50_000 + number) for number in range(second)])
        for reader in (untouched, mapped):
            for slot in reader.slots.tolist()[::9]:
                with contextlib.suppress(ExmemError):
                    batch = reader.read([slot])
                    assert batch.extras["e"].tolist() == [slot], "the new store's exemplar under an old slot"
            with contextlib.suppress(ExmemError):
                reader.refresh()
                assert reader.read(reader.slots).extras["e"].tolist() in (
                    [*range(first)],
                    [50_000 + number for number in range(second)],
                )
            reader.close()
        shutil.rmtree(folder)


def test_readers_open_and_read_right_beside_a_writer_that_commits_as_fast_as_it_can(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=NUMBERS, max_bytes=80_000, **QUICK) as memory:
        memory.add([numbered(number) for number in range(200)])
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(start)
        os._exit(in_a_child(lambda: write_fast(folder, end)))
    os.close(end)
    opened, last, stop = 0, -1, time.monotonic() + 4
    try:
        while time.monotonic() < stop:
            with ExemplarMemory.open(folder, threads=1) as reader:
                opened += 1
                assert reader.generation >= last
                last = reader.generation
                for _ in range(3):
                    slots = reader.slots[-40:]
                    try:
                        batch = reader.read(slots)
                    except StaleSnapshotError:
                        reader.refresh()
                        continue
                    assert batch.extras["e"].tolist() == slots.tolist()
                    assert batch.tokens["t"].values[:, 0].tolist() == (slots + 100).tolist()
    finally:
        os.close(start)
        assert os.waitpid(child, 0)[1] == 0
    assert opened > 20
    assert last > 200
    assert check(folder) == []


def write_fast(folder, end):
    """Add one exemplar and commit, with the number that its slot has, until the other end of a pipe is closed."""
    os.set_blocking(end, False)
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        for turn in itertools.count():
            number = memory.next_slot
            report = memory.add([numbered(number, priority=float(turn))])
            assert report.slots.tolist() == [number]
            memory.commit()
            if turn % 50 == 0:
                with contextlib.suppress(BlockingIOError):
                    if os.read(end, 1) == b"":
                        return


# Determinism.


def script(folder, *, reopen):
    """Make a memory and change it in many ways; with `reopen` it is closed and opened between."""
    memory = ExemplarMemory.create(folder, schema=NUMBERS, max_bytes=50_000, **QUICK)

    def pause():
        nonlocal memory
        if reopen:
            memory.close()
            memory = ExemplarMemory.open(folder, "r+", **QUICK)

    rng = np.random.default_rng(0)
    for turn in range(30):
        new = [
            numbered(turn * 100 + n, label=n % 5, priority=float(rng.random())) for n in range(int(rng.integers(90)))
        ]
        memory.add(new)
        memory.commit()
        pause()
        if turn % 4 == 1 and len(memory):
            memory.evict(memory.slots[rng.random(len(memory)) < 0.2])
            pause()
        if turn % 7 == 3:
            memory.resize(int(rng.integers(30_000, 60_000)))
            pause()
        if turn == 12:
            memory.charge("means", 5_000)
            memory.weigh({1: 2.0})
            pause()
        if turn == 20:
            memory.update(memory.slots[::9], priority=np.arange(len(memory.slots[::9]), dtype=float))
            memory.commit()
            pause()
    memory.close()


def files_of(folder, own_id):
    """Every file without what may differ: the lock, the store's id, and the checksum over it."""
    checksum = json.loads((folder / "state" / "zarr.json").read_text())["attributes"]["exmem"]["checksum"].encode()
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(own_id, b"<id>").replace(checksum, b"<sum>")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "lock" not in path.relative_to(folder).parts
    }


def id_of(folder):
    document = json.loads((folder / "state" / "zarr.json").read_text())
    own = document["attributes"]["exmem"]
    [found] = [value for key, value in own.items() if key in {"id", "store_id", "store"}]
    return str(found).encode()


def differing(one, other):
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def test_the_same_calls_give_the_same_bytes_whether_or_not_the_memory_was_reopened_between(tmp_path):
    found = []
    for name, reopen in (("first", False), ("second", False), ("reopened", True)):
        script(tmp_path / name, reopen=reopen)
        found.append(files_of(tmp_path / name, id_of(tmp_path / name)))
    assert len(found[0]) > 5
    assert differing(found[0], found[1]) == []
    assert differing(found[0], found[2]) == []


@pytest.mark.parametrize("name", ["text", "int8", "raw-pair", "tiny-and-huge", "jpeg"])
def test_a_plan_and_its_add_depend_on_nothing_but_what_is_held(tmp_path, name):
    facts = known(name)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        options = case_named(name).options() | {"max_bytes": facts.least_bytes + case_named(name).room[0]}
        with ExemplarMemory.create(folder, **options, **QUICK) as memory:
            for turn in range(6):
                if folder is folders[1]:
                    memory.plan_add(facts.pool[::-1])
                    memory.read(memory.slots)
                memory.add(facts.pool[turn:] + facts.pool[:turn])
                memory.commit()
    one, two = (files_of(folder, id_of(folder)) for folder in folders)
    assert differing(one, two) == []
    assert folder_bytes(folders[0]) == folder_bytes(folders[1])
