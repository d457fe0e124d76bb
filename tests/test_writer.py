"""What is staged: put early when full, within the budget, and gone without a trace when it is not committed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import StoreIOError
from exmem.store.objects import LocalObjects
from tests.exemplars import assert_same, exemplar, folder_bytes, schema

FEATURES = Schema({"features": TokenSpec(positions=1, shape=(64,), dtype="float16", codec="raw")})


def feature(index, label=0):
    value = np.random.default_rng(index).normal(size=(1, 64)).astype(np.float16)
    return Exemplar({"features": TokenSet.dense(value)}, label=label, priority=-index)


def test_one_commit_of_many_exemplars_waits_for_little_in_ram(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=FEATURES, max_bytes="4MB", durable=False) as memory:
        slots = []
        for start in range(0, 6000, 500):
            slots += memory.add([feature(index) for index in range(start, start + 500)]).slots.tolist()
            assert len(memory._store.writer._waiting) < 1100
        assert folder_bytes(tmp_path / "m") > 6000 * 128
        assert len(ExemplarMemory.open(tmp_path / "m")) == 0, "nothing is committed yet"
    memory = ExemplarMemory.open(tmp_path / "m")
    assert memory.slots.tolist() == slots
    found = memory.read(slots[::97])
    np.testing.assert_array_equal(found.tokens["features"].values[3], feature(3 * 97).tokens["features"].values)


def test_what_was_put_early_is_gone_after_a_discard(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=FEATURES, max_bytes="4MB", durable=False) as memory:
        memory.add([feature(index) for index in range(100)])
        memory.commit()
        before = folder_bytes(tmp_path / "m")
        memory.add([feature(index) for index in range(100, 3000)])
        assert folder_bytes(tmp_path / "m") > before + 200_000
        memory.discard()
        assert folder_bytes(tmp_path / "m") == before == memory.used_bytes
        assert len(memory) == 100


def test_a_disk_that_fails_during_an_add_leaves_nothing_added_and_works_again(tmp_path, monkeypatch):
    with ExemplarMemory.create(tmp_path / "m", schema=FEATURES, max_bytes="4MB", durable=False) as memory:
        memory.add([feature(index) for index in range(100)])
        memory.commit()
        used = memory.used_bytes
        for fails_at in range(6):
            real, count = LocalObjects.put, iter(range(1000))

            def put(objects, key, data, *, real=real, count=count, fails_at=fails_at):
                if next(count) == fails_at:
                    raise StoreIOError("the disk is full")
                real(objects, key, data)

            with monkeypatch.context() as patch:
                patch.setattr(LocalObjects, "put", put)
                with pytest.raises(StoreIOError):
                    memory.add([feature(index) for index in range(100, 3000)])
            assert len(memory) == 100
            assert memory.used_bytes <= used + 20_000
        slots = memory.add([feature(index) for index in range(100, 3000)]).slots
    memory = ExemplarMemory.open(tmp_path / "m")
    assert len(memory) == 3000
    np.testing.assert_array_equal(
        memory.read(slots[-1:]).tokens["features"].values[0], feature(2999).tokens["features"].values
    )


def test_rows_that_a_crashed_commit_left_in_a_chunk_never_come_to_life(tmp_path):
    """Slots may be passed over, so the next commit may not write the chunk that the crashed one wrote."""
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=FEATURES, max_bytes="4MB", durable=False) as memory:
        memory.add([feature(index) for index in range(10)])
    real = LocalObjects.put
    with pytest.MonkeyPatch.context() as patch:

        def put(objects, key, data):
            if key == "catalog/zarr.json":
                raise StoreIOError("the process dies here")
            real(objects, key, data)

        memory = ExemplarMemory.open(folder, mode="r+", durable=False)
        memory.add([feature(index) for index in range(10, 20)])
        patch.setattr(LocalObjects, "put", put)
        with pytest.raises(StoreIOError):
            memory.commit()
    (folder / "lock" / "zarr.json").unlink()
    with ExemplarMemory.open(folder, mode="r+", durable=False) as memory:
        memory._store.writer.forecast.next_slot = 1030  # as if the rest of a shard were passed over
        memory.add([feature(99)])
    memory = ExemplarMemory.open(folder)
    assert memory.slots.tolist() == [*range(10), 1030]
    memory.read(memory.slots)


@settings(deadline=None, max_examples=25)
@given(
    held=st.integers(0, 40),
    staged=st.integers(0, 10),
    added=st.integers(1, 10),
    codec=st.sampled_from(["raw", "lossless"]),
)
def test_the_quick_bound_is_never_below_what_is_measured(tmp_path_factory, held, staged, added, codec):
    folder = tmp_path_factory.mktemp("bound") / "m"
    with ExemplarMemory.create(folder, schema=schema(codec), max_bytes="2MB", durable=False, threads=1) as memory:
        memory.add([exemplar(seed) for seed in range(held)])
        memory.commit()
        memory.add([exemplar(seed) for seed in range(staged)])
        store, forecast = memory._store, memory._store.writer.forecast
        new = store.encode([exemplar(seed) for seed in range(100, 100 + added)])
        assert forecast.bound(new) >= sum(forecast.measure([], new))
        assert forecast.bound_alone(new[0]) >= sum(forecast.measure(memory.slots.tolist(), new[:1]))


def test_evicting_what_is_staged_and_put_leaves_the_rest_readable(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=FEATURES, max_bytes="4MB", durable=False) as memory:
        slots = memory.add([feature(index) for index in range(2500)]).slots
        memory.evict(slots[::2])
        memory.add([feature(index) for index in range(2500, 2600)])
        memory.evict(slots[1:400:4])
    memory = ExemplarMemory.open(tmp_path / "m")
    kept = sorted(set(slots[1::2].tolist()) - set(slots[1:400:4].tolist()))
    assert memory.slots.tolist()[: len(kept)] == kept
    for index in (3, 1001, 2499):
        assert_same(memory.read(slots[[index]]).exemplar(0), feature(index))
    assert memory.used_bytes == folder_bytes(tmp_path / "m")
