"""Full disks, permissions, and the order in which things become durable."""

import os
import pathlib
import subprocess
import tempfile
from pathlib import Path

import pytest

from exmem import ExemplarMemory
from exmem.errors import ReadOnlyError, StoreError, StoreIOError
from exmem.store.objects import LocalObjects
from exmem.upkeep import check
from tests.exemplars import assert_same, exemplar, folder_bytes, schema


@pytest.fixture
def small_disk():
    """A file system of 256 KiB; skipped where it cannot be mounted."""
    place = Path(tempfile.mkdtemp())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.rmdir()


def test_a_full_disk_is_a_clear_error_loses_nothing_and_is_used_again_when_there_is_room(small_disk):
    folder, ballast = small_disk / "m", small_disk / "ballast"
    ballast.write_bytes(bytes(60_000))
    given = {}
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes="2MB", threads=1) as memory:
        for seed in range(200):
            try:
                (slot,) = memory.add([exemplar(seed, label=seed % 3)]).slots.tolist()
                memory.commit()
            except StoreIOError as error:
                assert "the disk is full" in str(error)  # noqa: PT017
                break
            given[slot] = seed
        else:
            pytest.fail("the disk was never full")
        assert len(given) > 5
        reader = ExemplarMemory.open(folder, threads=1)
        assert set(given) <= set(reader.slots.tolist())
        for slot, seed in given.items():
            assert_same(reader.read([slot]).exemplar(0), exemplar(seed, label=seed % 3))
        ballast.unlink()
        memory.discard()
        memory.evict(sorted(given)[::2])
        slots = memory.add([exemplar(300)]).slots.tolist()
        memory.commit()
        assert_same(memory.read(slots).exemplar(0), exemplar(300))
    assert check(folder) == []


def test_a_folder_without_permission_says_so_and_is_used_again_when_it_may(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(1)])
        memory.commit()
        pathlib.Path(tmp_path / "m" / "catalog").chmod(0o500)
        with pytest.raises(ReadOnlyError, match="check the permissions"):
            memory.evict([0])
        pathlib.Path(tmp_path / "m" / "catalog").chmod(0o700)
        memory.evict([0])


class Recorder:
    """Writes down what happens to files and folders, in order."""

    def __init__(self, patch):
        self.events = []
        real_put, real_delete, real_sync = LocalObjects.put, LocalObjects.delete, LocalObjects._sync_folder
        real_fsync = os.fsync

        def put(objects, key, data):
            self.events.append(("write", key))
            real_put(objects, key, data)
            self.events.append(("put", key))

        def delete(objects, key):
            real_delete(objects, key)
            self.events.append(("delete", key))

        def sync(objects, folder):
            real_sync(objects, folder)
            self.events.append(("sync", os.path.relpath(folder, objects.root)))

        def fsync(descriptor):
            self.events.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
            real_fsync(descriptor)

        patch.setattr(LocalObjects, "put", put)
        patch.setattr(LocalObjects, "delete", delete)
        patch.setattr(LocalObjects, "_sync_folder", sync)
        patch.setattr(os, "fsync", fsync)


def folder_of(key):
    return key.rpartition("/")[0] or "."


def test_everything_is_durable_before_the_commit_point_and_that_before_success(tmp_path, monkeypatch):
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(seed) for seed in range(4)])
        recorder = Recorder(monkeypatch)
        for change in (memory.commit, lambda: memory.evict([1, 2])):
            recorder.events.clear()
            change()
            events = recorder.events
            point = events.index(("put", "catalog/zarr.json"))
            before = [key for kind, key in events[:point] if kind == "put"]
            assert before
            for key in before:
                at = events.index(("put", key))
                assert ("sync", folder_of(key)) in events[at:point], f"{key} may be lost behind the commit point"
            written = events.index(("write", "catalog/zarr.json"))
            assert any(kind == "fsync" and ".tmp-" in path for kind, path in events[written:point])
            assert ("sync", "catalog") in events[point:], "the commit itself may be lost"
            for kind, key in events:
                if kind == "delete":
                    assert events.index((kind, key)) > point, "bytes were reclaimed before the eviction was durable"
                    assert ("sync", folder_of(key)) in events[events.index((kind, key)) :]


def test_a_memory_that_need_not_be_durable_synchronises_nothing(tmp_path, monkeypatch):
    recorder = Recorder(monkeypatch)
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB", durable=False) as memory:
        memory.add([exemplar(seed) for seed in range(4)])
    assert not [event for event in recorder.events if event[0] == "fsync"]
    assert folder_bytes(tmp_path / "m") == ExemplarMemory.open(tmp_path / "m").used_bytes


def test_a_read_only_disk_is_told(tmp_path, monkeypatch):
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(1)])
        memory.commit()

        def fail(*_):
            raise OSError(30, "Read-only file system")

        with monkeypatch.context() as patch:
            patch.setattr(LocalObjects, "_write", fail)
            with pytest.raises(StoreError, match="check the permissions"):
                memory.evict([0])
        assert len(memory) == 1
        memory.evict([0])
