"""Full disks, permissions, and the order in which things become durable."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from exmem import ExemplarMemory
from exmem.errors import ReadOnlyError, StoreError, StoreIOError
from exmem.memory.maintenance import check
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
        (tmp_path / "m" / "state").chmod(0o500)
        with pytest.raises(ReadOnlyError, match="check the permissions"):
            memory.evict([0])
        (tmp_path / "m" / "state").chmod(0o700)
        memory.evict([0])


class Recorder:
    """Writes down what happens to files and folders below a root, in order."""

    def __init__(self, patch, root):
        self.events = []

        def record(kind, path):
            name = os.path.relpath(path, root)
            self.events.append((kind, name))

        def replace(source, target, real=os.replace):
            real(source, target)
            record("put", target)

        def unlink(path, real=os.unlink):
            real(path)
            record("delete", path)

        def fsync(descriptor, real=os.fsync):
            record("sync", Path(f"/proc/self/fd/{descriptor}").readlink())
            real(descriptor)

        patch.setattr(os, "replace", replace)
        patch.setattr(os, "unlink", unlink)
        patch.setattr(os, "fsync", fsync)


def folder_of(key):
    return key.rpartition("/")[0] or "."


def test_everything_is_durable_before_the_commit_point_and_that_before_success(tmp_path, monkeypatch):
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(seed) for seed in range(4)])
        recorder = Recorder(monkeypatch, tmp_path / "m")
        for change, puts, deletes in ((memory.commit, True, False), (lambda: memory.evict(memory.slots), False, True)):
            recorder.events.clear()
            change()
            events = recorder.events
            point = events.index(("put", "state/zarr.json"))
            before = [key for kind, key in events[:point] if kind == "put"]
            assert bool(before) == puts
            for key in before:
                at = events.index(("put", key))
                assert ("sync", folder_of(key)) in events[at:point], f"{key} may be lost behind the commit point"
                assert any(kind == "sync" and name.startswith(f"{folder_of(key)}/.tmp-") for kind, name in events[:at])
            assert any(kind == "sync" and name.startswith("state/.tmp-") for kind, name in events[:point])
            assert ("sync", "state") in events[point:], "the commit itself may be lost"
            deleted = [index for index, (kind, _) in enumerate(events) if kind == "delete"]
            assert bool(deleted) == deletes
            assert all(index > point for index in deleted), "bytes were reclaimed before the eviction was durable"


def test_a_memory_that_need_not_be_durable_synchronises_nothing(tmp_path, monkeypatch):
    recorder = Recorder(monkeypatch, tmp_path / "m")
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB", durable=False) as memory:
        memory.add([exemplar(seed) for seed in range(4)])
    assert [key for kind, key in recorder.events if kind == "put"]
    assert not [event for event in recorder.events if event[0] == "sync"]
    assert folder_bytes(tmp_path / "m") == ExemplarMemory.open(tmp_path / "m").used_bytes


def test_a_read_only_disk_is_told(tmp_path, monkeypatch):
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(1)])
        memory.commit()

        def fail(*_, **__):
            raise OSError(30, "Read-only file system")

        with monkeypatch.context() as patch:
            patch.setattr("exmem.store.objects.local.write_new", fail)
            with pytest.raises(StoreError, match="check the permissions"):
                memory.evict([0])
        assert len(memory) == 1
        memory.evict([0])
