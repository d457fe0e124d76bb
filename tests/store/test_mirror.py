"""A mirror holds what the memory held, fetches what is new alone, and is no place to write."""

import contextlib
import random

import pytest
import zarr.storage

from exmem import ExemplarMemory
from exmem.errors import LockedError, StoreExistsError, StoreIOError, StoreNotFoundError
from exmem.memory.maintenance import check
from exmem.store.mirror import mirror
from exmem.store.objects import remote
from tests.store.made import BLOBS, NUMBERS, QUICK, blob, contents, numbered


@pytest.fixture
def store():
    return zarr.storage.MemoryStore()


def create(place, *, schema=NUMBERS, max_bytes="200kB"):
    return ExemplarMemory.create(place, schema=schema, max_bytes=max_bytes, **QUICK)


def read(folder):
    return contents(ExemplarMemory.open(folder, threads=1))


def test_it_holds_what_was_committed_and_fetches_what_is_new_alone(store, tmp_path):
    folder = tmp_path / "mirror"
    with create(store, schema=BLOBS, max_bytes="1MB") as memory:
        memory.add([blob(3000, seed=number) for number in range(40)])
        memory.commit()
        first = mirror(store, folder)
        assert read(folder) == contents(memory)
        memory.add([blob(3000, seed=number) for number in range(40, 44)])
        assert mirror(store, folder) < first / 2
        assert len(read(folder)) == 40, "what is not committed is no part of it"
        memory.commit()
        assert mirror(store, folder) < first / 2
        assert read(folder) == contents(memory)
    assert check(folder) == []


def test_a_reader_of_it_keeps_its_snapshot_until_it_follows(store, tmp_path):
    with create(store) as memory:
        slots = memory.add([numbered(number) for number in range(30)]).slots
        memory.commit()
        mirror(store, tmp_path)
        reader = ExemplarMemory.open(tmp_path, threads=1)
        before = contents(reader)
        memory.add([numbered(number) for number in range(30, 40)])
        memory.commit()
        mirror(store, tmp_path)
        assert contents(reader) == before
        memory.evict(slots[:5])
        mirror(store, tmp_path)
        reader.refresh()
        assert contents(reader) == contents(memory)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_right_after_any_changes_and_interruptions(store, tmp_path, seed, monkeypatch):
    rng, real, left = random.Random(seed), remote.RemoteObjects.views, [10**9]

    def views(self, keys):
        left[0] -= 1
        if left[0] < 0:
            raise StoreIOError("the network is gone")
        return real(self, keys)

    monkeypatch.setattr(remote.RemoteObjects, "views", views)
    monkeypatch.setattr("exmem.store.mirror._AT_ONCE", 2)
    with create(store, schema=BLOBS, max_bytes="60kB") as memory:
        for turn in range(40):
            kind = rng.random()
            if kind < 0.6:
                memory.add([blob(rng.randrange(160, 3000), seed=turn, label=turn % 3) for _ in range(rng.randrange(4))])
            elif len(memory) and kind < 0.8:
                memory.evict(rng.sample(memory.slots.tolist(), 1))
            elif len(memory):
                memory.update(memory.slots[:1], priority=rng.random())
            if rng.random() < 0.3:
                memory.compact()
            memory.commit()
            if rng.random() < 0.5:
                left[0] = rng.randrange(3)
                with contextlib.suppress(StoreIOError):
                    mirror(store, tmp_path)
                left[0] = 10**9
            if rng.random() < 0.4:
                mirror(store, tmp_path)
                assert read(tmp_path) == contents(memory)
    mirror(store, tmp_path)
    assert check(tmp_path) == []
    assert read(tmp_path) == read(store)


def test_a_mirror_that_was_written_to_is_refused(store, tmp_path):
    with create(store) as memory:
        memory.add([numbered(1)])
    mirror(store, tmp_path)
    with ExemplarMemory.open(tmp_path, mode="r+", **QUICK) as copy:
        with pytest.raises(LockedError):
            mirror(store, tmp_path)
        copy.add([numbered(2)])
    with pytest.raises(StoreExistsError, match="is no mirror, or was written to"):
        mirror(store, tmp_path)


def test_what_is_no_mirror_of_this_memory_is_left_alone(store, tmp_path):
    with pytest.raises(StoreNotFoundError):
        mirror(store, tmp_path / "none")
    with create(store) as memory:
        memory.add([numbered(1)])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "today.txt").write_text("keep")
    with pytest.raises(StoreExistsError, match=r"today\.txt"):
        mirror(store, tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["today.txt"]
    create(tmp_path / "own").close()
    with pytest.raises(StoreExistsError, match="is no mirror"):
        mirror(store, tmp_path / "own")
    other = zarr.storage.MemoryStore()
    create(other).close()
    mirror(other, tmp_path / "other")
    with pytest.raises(StoreExistsError, match="another memory"):
        mirror(store, tmp_path / "other")
