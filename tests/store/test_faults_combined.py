"""Faults found from outside, in combination: resizes far down, streams, locks that are lost, leftovers."""

import contextlib
import shutil

import numpy as np
import pytest
import zarr

from exmem import ExemplarMemory, Schema, TokenSpec
from exmem.errors import (
    BudgetError,
    BudgetTooSmallError,
    CarriedThroughWarning,
    LockedError,
    StaleSnapshotError,
    StoreIOError,
)
from exmem.memory.maintenance import check
from exmem.memory.reservoir import StreamReservoir, arrival_keys
from tests.driver.faults import KILLED, Fault, Watched, in_a_child, within_limit
from tests.driver.reserve import reserve_watched
from tests.exemplars import folder_bytes
from tests.store.made import BLOBS, NUMBERS, QUICK, TEXT, blob, contents, full, numbered, text

FEATURES = Schema({"f": TokenSpec(positions=1, shape=(256,), dtype="float32", codec="float16")})


def with_features(folder, count, max_bytes):
    memory = ExemplarMemory.create(folder, schema=FEATURES, max_bytes=max_bytes, **QUICK)
    priorities = np.random.default_rng(0).random(count)
    memory.add_batch({"f": np.zeros((count, 1, 256), "f4")}, np.arange(count) % 20, priorities=priorities)
    memory.commit()
    return memory


# Resizes far down -------------------------------------------------------------------------------------------------


@pytest.mark.one_in(2)
@pytest.mark.parametrize("change", ["resize", "charge"])
@pytest.mark.parametrize("least", [8_000, 12_000, 20_000, 45_000, 250_000])
def test_a_memory_made_far_smaller_holds_what_a_fresh_one_would(tmp_path, least, change):
    with (
        with_features(tmp_path / "large", 4000, "64MB") as memory,
        with_features(tmp_path / "fresh", 4000, least) as fresh,
    ):
        gone = memory.resize(least) if change == "resize" else memory.charge("means", 64_000_000 - least)
        assert len(gone) == 4000 - len(memory)
        assert abs(len(memory) - len(fresh)) <= max(2, 0.03 * len(fresh))
        few = min(len(memory), len(fresh))
        assert len(set(memory.priorities.tolist()) & set(fresh.priorities.tolist())) >= 0.95 * few
        assert folder_bytes(tmp_path / "large") <= least
    assert check(tmp_path / "large") == []


def test_what_is_staged_is_laid_out_anew_too(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=NUMBERS, max_bytes=400_000, **QUICK) as memory:
        memory.add([numbered(number) for number in range(4000)])  # full segments are put, none is committed
        memory.resize(12_000)
        with ExemplarMemory.create(tmp_path / "fresh", schema=NUMBERS, max_bytes=12_000, **QUICK) as fresh:
            fresh.add([numbered(number) for number in range(4000)])
            assert abs(len(memory) - len(fresh)) <= max(2, 0.03 * len(fresh))
    with ExemplarMemory.open(tmp_path / "m") as memory:
        assert contents(memory)


def test_a_budget_that_is_refused_is_one_that_no_memory_can_have(tmp_path):
    with full(tmp_path / "m", NUMBERS, numbered, max_bytes=100_000, batch=500) as memory:
        with pytest.raises(BudgetTooSmallError, match=r"needs ([\d,]+)") as refusal:
            memory.resize(1000)
        least = int(str(refusal.value).split("needs ")[1].split(";")[0].replace(",", ""))
        memory.resize(least)
        assert folder_bytes(tmp_path / "m") <= least
    with ExemplarMemory.create(tmp_path / "fresh", schema=NUMBERS, max_bytes=least, **QUICK):
        pass


def test_a_charge_of_a_long_name_costs_what_it_takes(tmp_path):
    with full(tmp_path / "m", NUMBERS, numbered, max_bytes=60_000, batch=500) as memory:
        held = len(memory)
        for length in (100, 3_000, 10_000):
            with Watched(None, within_limit(tmp_path / "m", lambda: 60_000)):
                memory.charge("x" * length, 5)
                memory.charge("x" * length, 0)
        assert len(memory) < held
        memory.add([numbered(number) for number in range(2000)])
    assert check(tmp_path / "m") == []


# Streams ------------------------------------------------------------------------------------------------------------


def streamed(folder, count=200):
    memory = ExemplarMemory.create(folder, schema=NUMBERS, max_bytes=12_000, eviction="by_priority", **QUICK)
    StreamReservoir(memory, seed=1).add([numbered(number) for number in range(count)])
    return memory


def assert_uniform(memory):
    """Held are the arrivals whose key is above the threshold, and those only."""
    state = memory.reservoir_state
    keys = arrival_keys(state["seed"], 0, state["seen"])
    assert sorted(memory.priorities.tolist()) == sorted(keys[keys > state["threshold"]].tolist())


@pytest.mark.parametrize("kind", ["EIO", "MemoryError", "KeyboardInterrupt"])
@pytest.mark.parametrize("at", range(4))
def test_an_add_to_a_stream_that_is_broken_off_leaves_it_uniform(tmp_path, kind, at):
    memory = streamed(tmp_path / "m")
    reservoir = StreamReservoir(memory)
    with (
        Watched(Fault(kind, at, "before"), lambda _: None),
        contextlib.suppress(StoreIOError, MemoryError, KeyboardInterrupt),
    ):
        reservoir.add([numbered(number) for number in range(100)])
    assert_uniform(memory)
    reservoir.add([numbered(number) for number in range(50)])
    memory.close()
    with ExemplarMemory.open(tmp_path / "m") as reader:
        assert_uniform(reader)


@pytest.mark.kills
@pytest.mark.parametrize("how", ["EIO", "kill"])
@pytest.mark.parametrize("change", [{"max_exemplars": 20}, {"max_bytes": 8_000}], ids=["count", "bytes"])
def test_a_resize_of_a_stream_that_is_broken_off_anywhere_leaves_it_uniform(tmp_path, change, how, one_in):
    for at in one_in(5, range(40)):
        folder = tmp_path / f"at{at}"
        memory = streamed(folder)
        memory.commit()
        ended = True
        if how == "EIO":
            with Watched(Fault(how, at, "before"), lambda _: None) as watched, contextlib.suppress(StoreIOError):
                memory.resize(**change)
            ended = not watched.hit
        else:
            memory.close()

            def act(folder=folder, at=at):
                with ExemplarMemory.open(folder, "r+", **QUICK) as child, Watched(Fault("kill", at, "before"), str):
                    child.resize(**change)

            ended = in_a_child(act) != KILLED
            memory = ExemplarMemory.open(folder, "r+", **QUICK)
        reservoir = StreamReservoir(memory)
        reservoir.add([numbered(reservoir.seen)])
        assert_uniform(memory)
        memory.close()
        shutil.rmtree(folder)
        if ended:
            break
    assert at > 2


def test_whatever_the_priority_of_what_goes_the_state_of_a_stream_can_be_written(tmp_path):
    memory = streamed(tmp_path / "m", 20)
    memory.add([numbered(number, priority=np.inf) for number in range(10)])
    memory.resize(max_exemplars=3)
    assert StreamReservoir(memory).threshold == 1.0
    memory.close()
    with ExemplarMemory.open(tmp_path / "m", "r+") as memory:
        assert len(memory) == 3


# Locks and leftovers ------------------------------------------------------------------------------------------------


def test_a_writer_whose_store_was_made_anew_puts_nothing_there_and_can_be_closed(tmp_path):
    old = ExemplarMemory.create(tmp_path / "m", schema=NUMBERS, max_bytes=60_000, **QUICK)
    old.add([numbered(number) for number in range(300)])
    old.commit()
    shutil.rmtree(tmp_path / "m")
    with ExemplarMemory.create(tmp_path / "m", schema=NUMBERS, max_bytes=60_000, **QUICK) as new:
        new.add([numbered(1000 + number, label=5) for number in range(300)])
        new.commit()
        before = contents(new)
        with pytest.raises(LockedError):
            old.add([numbered(number) for number in range(300)])
        with pytest.raises(LockedError):
            old.close()
        old.close()
        assert contents(new) == before
        new.add([numbered(2000)])
    assert check(tmp_path / "m") == []


def test_a_store_that_was_moved_away_from_its_writer_can_be_opened_once_that_is_closed(tmp_path):
    memory = ExemplarMemory.create(tmp_path / "m", schema=NUMBERS, max_bytes=60_000, **QUICK)
    memory.add([numbered(number) for number in range(30)])
    memory.commit()
    memory.add([numbered(30)])
    (tmp_path / "m").rename(tmp_path / "elsewhere")
    with pytest.raises(LockedError), memory:
        memory.add([numbered(number) for number in range(1000)])
    assert not (tmp_path / "m").exists()
    with ExemplarMemory.open(tmp_path / "elsewhere", "r+") as memory:
        assert len(memory) == 30


def test_an_older_state_that_is_put_back_under_a_reader_is_noticed(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=NUMBERS, max_bytes=60_000, **QUICK) as memory:
        memory.add([numbered(number) for number in range(10)])
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    with ExemplarMemory.open(tmp_path / "m", "r+", **QUICK) as memory:
        for number in range(5):
            memory.add([numbered(100 + number)])
            memory.commit()
    reader = ExemplarMemory.open(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    shutil.copytree(tmp_path / "copy", tmp_path / "m")
    with ExemplarMemory.open(tmp_path / "m", "r+", **QUICK) as memory:
        memory.add([numbered(200 + number) for number in range(5)])
    with pytest.raises(StaleSnapshotError):
        reader.read(reader.slots)


def test_files_of_others_that_fill_the_budget_refuse_an_add_before_anything_is_put(tmp_path):
    with full(tmp_path / "m", NUMBERS, numbered, max_bytes=20_000, batch=200) as memory:
        memory.evict(memory.slots[::3])
        room = 20_000 - folder_bytes(tmp_path / "m")
    (tmp_path / "m" / "notes.txt").write_bytes(b"x" * (room - 100))
    memory = ExemplarMemory.open(tmp_path / "m", "r+", **QUICK)
    held = contents(memory)
    with Watched(None, within_limit(tmp_path / "m", lambda: 20_000)) as watched, pytest.raises(BudgetError):
        memory.add([numbered(number) for number in range(50)])
    assert watched.count == 0
    assert contents(memory) == held
    memory.close()


@pytest.mark.kills
def test_what_a_writer_that_died_left_is_no_damage(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=NUMBERS, max_bytes=60_000, **QUICK) as memory:
        memory.add([numbered(number) for number in range(100)])

    def act(at):
        with ExemplarMemory.open(folder, "r+", **QUICK) as memory, Watched(Fault("kill", at, "after"), str):
            memory.add([numbered(number) for number in range(1500)])

    for at in range(0, 60, 3):
        if in_a_child(lambda at=at: act(at)) != KILLED:
            break
        assert check(folder) == []
    assert at > 10


def test_who_goes_for_a_resize_that_is_carried_through_later_is_told(tmp_path):
    memory = full(tmp_path / "m", NUMBERS, numbered, max_bytes=30_000, batch=200)
    before = set(memory.slots.tolist())
    for at in range(1, 30):
        with Watched(Fault("EIO", at, "before"), lambda _: None), contextlib.suppress(StoreIOError):
            memory.resize(15_000)
        if memory._store.writer.dirty and memory._store.books.state.wanted is not None:
            break
    with pytest.warns(CarriedThroughWarning, match="exemplars were evicted") as told:
        memory.add([])
    assert f"{len(before) - len(memory):,} exemplars" in str(told[0].message)
    assert memory.max_bytes == 15_000
    memory.close()


@pytest.mark.parametrize("waiting", [100, 255])
def test_what_waits_for_large_segments_and_is_put_into_many_small_ones_lies_within_the_arrays(tmp_path, waiting):
    with (
        reserve_watched(),
        ExemplarMemory.create(tmp_path, schema=TEXT, max_bytes=200_000, **QUICK) as memory,
    ):
        memory.add([text(number) for number in range(180)])
        memory.commit()
        memory.add([text(1_000 + number) for number in range(waiting)])
        memory.charge("means", 180_000)  # segments of 16 rows from now on
    with ExemplarMemory.open(tmp_path) as memory:
        assert len(memory) == 180 + waiting
        [(number, era)] = memory._store.state.eras.items()
    assert zarr.open(tmp_path, mode="r")[f"e{number}/catalog"].shape[0] >= era.rows * era.given
    assert era.given > 16


@pytest.mark.parametrize("max_bytes", [16_000, 34_000, 61_000, 133_000])
@pytest.mark.parametrize("change", ["resize", "charge"])
def test_a_little_less_budget_costs_a_little_though_other_segments_would_suit_it_better(tmp_path, max_bytes, change):
    with (
        reserve_watched(),
        full(tmp_path, BLOBS, lambda number: blob(96, seed=number, priority=number), max_bytes=max_bytes) as memory,
    ):
        held, less = len(memory), max_bytes // 20
        memory.resize(max_bytes - less) if change == "resize" else memory.charge("means", less)
        assert len(memory) >= 0.92 * held
    assert check(tmp_path) == []
