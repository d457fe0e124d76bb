"""Faults that earlier stores had, each kind with a test of its own: room, evictions, quotas and layouts at the brim."""

import contextlib
import itertools
import random
import shutil

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.memory.maintenance import check, repair
from exmem.memory.reservoir import StreamReservoir, arrival_keys
from tests.driver.faults import KILLED, Fault, Watched, in_a_child, within_limit
from tests.driver.schemas import known
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
    fill,
    full,
    numbered,
    text,
    vectors,
)

PAIR = Schema(
    {
        "image": TokenSpec(positions=1, shape=(300,), dtype="uint8", codec="raw"),
        "text": TokenSpec(positions=1000, dtype="uint8", codec="raw"),
    }
)
ONES = Schema(
    {"f": TokenSpec(positions=1, shape=(64,), dtype="float32", codec="int8")},
    {f"e{i}": ExtraSpec(dtype="int16") for i in range(4)},
)
NOISE = Schema({"image": TokenSpec(positions=16, shape=(12,), dtype="uint8", codec="lossless")})


def pair(number, priority=None):
    rng = np.random.default_rng(number)
    kept = np.sort(rng.choice(1000, 100, replace=False))
    tokens = {
        "image": TokenSet([0], rng.integers(0, 256, (1, 300)).astype(np.uint8)),
        "text": TokenSet(kept, np.arange(100, dtype=np.uint8)),
    }
    return Exemplar(tokens, label=number % 3, priority=float(rng.random()) if priority is None else priority)


def ones(number, priority=None):
    rng = np.random.default_rng(number)
    values = rng.normal(size=(1, 64)).astype(np.float32)
    priority = float(rng.random()) if priority is None else priority
    return Exemplar(
        {"f": TokenSet([0], values)}, label=number % 10, priority=priority, extras={f"e{i}": 1 for i in range(4)}
    )


def noise(number, label=0, priority=0.0):
    rng = np.random.default_rng(number)
    values = rng.integers(0, 256, (16, 12)).astype(np.uint8)
    return Exemplar({"image": TokenSet.dense(values)}, label=label, priority=priority)


def at_the_brim(folder, schema, make, max_bytes, **options):
    """A full memory whose budget is then lowered to what it uses, as far as that goes without an eviction."""
    memory = full(folder, schema, make, max_bytes=max_bytes, **options)
    memory.resize(memory.max_bytes - memory.free_bytes)
    return memory


# A kill leaves a temporary file in a memory full to the brim.


def test_a_temporary_file_in_any_folder_of_a_full_memory_does_not_keep_a_writer_out(tmp_path):
    folder = tmp_path / "m"
    with at_the_brim(folder, PAIR, pair, 120_000) as memory:
        held = contents(memory)
    folders = sorted({path.parent for path in folder.rglob("*") if path.is_file()} | {folder})
    for number, inner in enumerate(folders):
        (inner / f".tmp-{number}-0").write_bytes(bytes(50_000))
        (inner / f".tmp-{number}-1").write_bytes(b"")
        if number % 2:
            assert repair(folder).damage == ()
        with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
            assert contents(memory) == held
            assert_within(memory, folder)
    assert check(folder) == []


@pytest.mark.kills
def test_a_kill_at_any_rename_of_an_eviction_at_the_brim_leaves_a_memory_that_opens(tmp_path):
    folder = tmp_path / "m"
    with at_the_brim(folder, PAIR, pair, 60_000) as memory:
        held, limit = contents(memory), memory.max_bytes
    for number in itertools.count():

        def act(number=number):
            memory = ExemplarMemory.open(folder, "r+", **QUICK)
            with Watched(Fault("kill", number), within_limit(folder, lambda: limit)):
                memory.evict(memory.slots[:2])
                memory.add([pair(1000 + number, priority=9.0)])
                memory.commit()

        status = in_a_child(act)
        assert status in {0, KILLED}
        with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
            assert len(memory)
            assert all(found == held.setdefault(slot, found) for slot, found in contents(memory).items())
            assert_within(memory, folder)
        if status == 0:
            break
    assert number > 5
    assert check(folder) == []


# A full memory, compressible extras, 99 better exemplars.


@pytest.mark.slow
@pytest.mark.one_in(2)
@pytest.mark.parametrize("batch", [1, 10, 99, 400])
def test_better_exemplars_with_compressible_extras_come_into_a_full_memory_again_and_again(tmp_path, batch):
    folder = tmp_path / "m"
    memory = full(folder, ONES, ones, max_bytes=150_000, batch=99)
    before = len(memory)
    for turn in range(8):
        start = 10_000 + 1000 * turn
        report = memory.add([ones(start + number, priority=2.0 + turn) for number in range(batch)])
        assert (report.slots >= 0).all()
        assert len(memory) > 0.97 * before - 2
        if turn % 2:
            memory.commit()
    memory.close()
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert len(memory) > 0.97 * before - 2
        assert_within(memory, folder)


# A second staged add without a commit between.


@pytest.mark.parametrize(("first", "second"), [(200, 50), (30, 500), (400, 400)])
def test_a_second_add_without_a_commit_between_takes_what_is_staged_into_account(tmp_path, first, second):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=NOISE, max_bytes=100_000, **QUICK) as memory:
        memory.add([noise(number, label=number % 3) for number in range(first)])
        report = memory.add([noise(1000 + number, label=number % 3, priority=1.0) for number in range(second)])
        assert (report.slots >= 0).sum() >= min(second, 200)
        staged = contents(memory)
        memory.commit()
        assert_within(memory, folder)
    with ExemplarMemory.open(folder, threads=1) as reader:
        assert contents(reader) == staged


# One exemplar held, then many new classes in a small memory.


@pytest.mark.parametrize("classes", [2, 49, 300])
def test_many_new_classes_at_once_never_empty_a_small_memory(tmp_path, classes):
    least = known("text").least_bytes
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=least + 600, **QUICK) as memory:
        memory.add([text(0)])
        memory.commit()
        alone = len(memory)
        memory.add([text(number, label=number) for number in range(1, classes + 1)])
        memory.commit()
        assert alone == 1
        assert len(memory) >= min(classes, 4)
        many = len(memory)
        memory.add([text(number, label=1000 + number) for number in range(classes)])
        assert len(memory) >= many - 1


# Evicting a random half of many small texts at the brim.


@pytest.mark.slow
@pytest.mark.one_in(3)
@pytest.mark.parametrize("part", [0.03, 0.5, 0.97])
def test_a_random_part_of_a_full_memory_of_small_texts_can_be_evicted(tmp_path, part):
    folder = tmp_path / "m"
    memory = at_the_brim(folder, TEXT, lambda number: text(number, label=number // 500), 120_000, batch=1000)
    rng, slots = np.random.default_rng(1), memory.slots
    gone = slots[rng.random(len(slots)) < part]
    memory.evict(gone)
    left = np.setdiff1d(slots, gone).tolist()
    assert memory.slots.tolist() == left
    assert ExemplarMemory.open(folder, threads=1).slots.tolist() == left
    memory.evict(memory.slots[::3])
    memory.close()
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        memory.evict(memory.slots[1::2])
        fill(memory, ([text(turn * 500 + n, label=turn, priority=1.0) for n in range(500)] for turn in range(100)))
        # These take ten bytes each; one that was moved takes a byte more: its slot does not follow its neighbour's.
        assert len(memory) > 0.97 * len(slots) * 10 / 11 - 2
    assert check(folder) == []


# Charges.


@pytest.mark.slow
@pytest.mark.one_in(3)
@pytest.mark.parametrize("charge", [1, 20_000, 60_000])
def test_the_files_never_exceed_the_budget_less_charges_at_any_operation(tmp_path, charge):
    folder, limit = tmp_path / "m", 110_000 - charge
    with ExemplarMemory.create(folder, schema=ONES, max_bytes=110_000, **QUICK) as memory:
        memory.charge("means", charge)
        with Watched(None, within_limit(folder, lambda: limit)) as watched:
            fill(memory, ([ones(number) for number in range(turn, turn + 99)] for turn in range(0, 10_000, 99)))
            for turn in range(4):
                memory.add([ones(20_000 + number, priority=2.0 + turn) for number in range(99)])
                memory.commit()
                memory.evict(memory.slots[::7])
        assert watched.count > 50
        assert memory.used_bytes == folder_bytes(folder) + charge


# Resize to less.


@pytest.fixture(scope="module")
def scale(in_full):
    return 1 if in_full else 4


def fill_with_vectors(folder, max_bytes, scale):
    with ExemplarMemory.create(folder, schema=VECTORS, max_bytes=max_bytes, **QUICK) as memory:
        for turn in range(60 // scale):
            memory.add(vectors(500, seed=turn))
            memory.commit()
        return len(memory)


@pytest.fixture(scope="module")
def large(tmp_path_factory, scale):
    """A memory of small exemplars, and how many it holds."""
    folder = tmp_path_factory.mktemp("large") / "m"
    return folder, fill_with_vectors(folder, 1_000_000 // scale, scale)


@pytest.mark.slow
@pytest.mark.parametrize("to", [500_000, 250_000, 125_000])
def test_after_a_resize_a_memory_of_small_exemplars_holds_what_a_fresh_one_would(tmp_path, large, to, scale):
    folder, full_count = large
    shutil.copytree(folder, tmp_path / "m")
    fresh_count = fill_with_vectors(tmp_path / "fresh", to // scale, scale)
    with ExemplarMemory.open(tmp_path / "m", "r+", **QUICK) as memory:
        memory.resize(to // scale)
        assert_within(memory, tmp_path / "m")
        count = len(memory)
    assert full_count > 1.8 * fresh_count
    assert abs(count - fresh_count) <= max(2, 0.03 * fresh_count), (count, fresh_count)


def test_after_a_resize_a_memory_of_large_exemplars_holds_what_a_fresh_one_would(tmp_path):
    made = [blob(20_000 + 160 * (number % 7), seed=number, label=number % 4) for number in range(60)]
    counts = {}
    for name, budget in (("resized", 1_000_000), ("fresh", 250_000)):
        with ExemplarMemory.create(tmp_path / name, schema=BLOBS, max_bytes=budget, **QUICK) as memory:
            memory.add(made)
            memory.commit()
            memory.resize(250_000)
            counts[name] = len(memory)
    assert abs(counts["resized"] - counts["fresh"]) <= 2, counts


# A reservoir.


@pytest.mark.slow
def test_a_reservoir_holds_as_many_after_a_long_stream_as_after_a_short_one(tmp_path, request, in_full):
    exhaustive = request.config.getoption("--exhaustive")
    scale = 1 if in_full or exhaustive else 4
    arrivals = 1_000_000 if exhaustive else 40_000 // scale
    options = {"schema": VECTORS, "max_bytes": 300_000 // scale, "eviction": "by_priority"}
    with ExemplarMemory.create(tmp_path / "m", **options, **QUICK) as memory:
        stream, batch, held = StreamReservoir(memory, seed=0), vectors(500), {}
        while stream.seen < arrivals:
            stream.add(batch)
            memory.commit()
            held[stream.seen] = len(memory)
        assert_within(memory, tmp_path / "m")
    short = held[10_000 // scale]
    assert short < 10_000 // scale
    assert abs(held[arrivals] - short) <= 0.03 * short, (short, held[arrivals])


def assert_uniform(memory):
    """What is held is exactly what came with a key above the threshold."""
    stream = StreamReservoir(memory)
    keys = arrival_keys(stream.seed, 0, stream.seen)
    assert sorted(memory.priorities.tolist()) == sorted(keys[keys > stream.threshold].tolist())
    return stream


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_state_of_a_reservoir_is_that_of_its_exemplars_after_a_death_anywhere(tmp_path, when, one_in):
    folder, made = tmp_path / "m", vectors(60)
    options = {"schema": VECTORS, "max_bytes": 40_000, "eviction": "by_priority"}
    with ExemplarMemory.create(folder, **options, **QUICK) as memory:
        stream = StreamReservoir(memory, seed=3)
        while stream.seen < 3_000:
            stream.add(made)
            memory.commit()
    for number in one_in(3, range(40)):

        def act(number=number):
            stream = assert_uniform(memory := ExemplarMemory.open(folder, "r+", **QUICK))
            with Watched(Fault("kill", number, when)):
                for _ in range(6):
                    stream.add(made)
                    stream.add(made)
                    memory.commit()

        assert in_a_child(act) in {0, KILLED}
        with ExemplarMemory.open(folder, threads=1) as reader:
            assert_uniform(reader)
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert_uniform(memory)
        assert_within(memory, folder)


@pytest.mark.slow
def test_the_state_of_a_reservoir_is_that_of_its_exemplars_after_interrupts_and_discards(tmp_path):
    made = vectors(60)
    options = {"schema": VECTORS, "max_bytes": 40_000, "eviction": "by_priority"}
    with ExemplarMemory.create(tmp_path / "m", **options, **QUICK) as memory:
        stream = StreamReservoir(memory, seed=3)
        for number in range(120):
            fault = Fault("KeyboardInterrupt", number % 23, ("before", "after")[number % 2])
            with Watched(fault if number > 40 else None), contextlib.suppress(KeyboardInterrupt):
                stream.add(made)
                stream.add(made)
                memory.commit()
            if number % 5 == 4:
                memory.discard()
            assert_uniform(memory)
        assert stream.seen > 4_000


# A first exemplar without tokens.


@pytest.mark.parametrize("budget", [100_000, 1_000_000])
@pytest.mark.parametrize("first", [1, 300])
def test_exemplars_without_tokens_that_come_first_take_nothing_from_large_ones(tmp_path, budget, first):
    empty = Exemplar({"image": TokenSet([], np.zeros((0, 16), np.uint8))}, label=0, priority=1.0)
    counts = {}
    for number in (0, first):
        with ExemplarMemory.create(tmp_path / f"m{number}", schema=BLOBS, max_bytes=budget, **QUICK) as memory:
            memory.add([empty] * number)
            memory.commit()
            memory.add([blob(4096, seed=seed, label=1, priority=1.0) for seed in range(300)])
            memory.commit()
            counts[number] = int((memory.labels == 1).sum())
    assert counts[0] > 0.8 * budget // 4200
    # 300 empty ones are a class that is held too: they take their rows of about 20 bytes.
    assert counts[first] >= counts[0] - 2 - first * 30 // 4096, counts


# An eviction over many segments is one commit.


@pytest.mark.kills
def test_an_eviction_over_all_segments_is_seen_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "m"
    with full(
        folder, NUMBERS, lambda number: numbered(number, label=number % 7), max_bytes=120_000, batch=300
    ) as memory:
        before, generation = memory.slots, memory.generation
        half = random.Random(0).sample(before.tolist(), len(before) // 2)
        limit = memory.max_bytes
    after = np.setdiff1d(before, half).tolist()
    seen = set()
    for number in itertools.count():

        def act(number=number):
            memory = ExemplarMemory.open(folder, "r+", **QUICK)
            with Watched(Fault("kill", number, "after"), within_limit(folder, lambda: limit)):
                memory.evict(half)

        status = in_a_child(act)
        assert status in {0, KILLED}
        with ExemplarMemory.open(folder, threads=1) as reader:
            whole = reader.slots.tolist() == before.tolist()
            assert whole or reader.slots.tolist() == after
            assert whole == (reader.generation == generation)
            seen.add(whole)
        if not whole:
            break
    assert seen == {True, False}
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert memory.slots.tolist() == after
    assert check(folder) == []
