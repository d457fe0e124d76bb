"""What is staged: full segments are put early, within the budget, and are gone when they are not committed."""

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import StoreIOError
from exmem.store.objects import LocalObjects
from tests.exemplars import assert_same, folder_bytes

FEATURES = Schema({"features": TokenSpec(positions=1, shape=(64,), dtype="float16", codec="raw")})


def feature(index, label=0):
    value = np.random.default_rng(index).normal(size=(1, 64)).astype(np.float16)
    return Exemplar({"features": TokenSet.dense(value)}, label=label, priority=-index)


def test_one_commit_of_many_exemplars_waits_for_little_in_ram(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=FEATURES, max_bytes="4MB", durable=False) as memory:
        slots = []
        for start in range(0, 6000, 500):
            slots += memory.add([feature(index) for index in range(start, start + 500)]).slots.tolist()
            assert len(memory._store.writer.staged.rows) <= 256, "more waits than a segment holds"
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
        assert abs(folder_bytes(tmp_path / "m") - before) < 10  # the digits of the next slot
        assert memory.used_bytes == folder_bytes(tmp_path / "m")
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
