"""Objects in a folder: put whole or not at all, read bounded, never beyond the budget."""

import errno
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from exmem.errors import BudgetError, FormatError, ReadOnlyError, SchemaError, StoreExistsError, StoreIOError
from exmem.store.objects import LOCK_BYTES, LOCK_KEY, TEMPORARY, BudgetedObjects, LocalObjects, files, local, objects_at

KEY = "e0/rows/c.0.0"


@pytest.fixture
def objects(tmp_path):
    return LocalObjects(tmp_path / "store", durable=False)


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def leftovers(folder):
    return [path for path in Path(folder).rglob("*") if path.name.startswith(TEMPORARY)]


def test_what_was_put_is_there_until_it_is_deleted(objects):
    assert objects.sizes() == {}
    assert objects.get(KEY, limit=9) is None
    assert objects.view(KEY) is None
    assert objects.identity(KEY) is None
    objects.put(KEY, b"one")
    objects.put("zarr.json", b"")
    assert objects.sizes() == {KEY: 3, "zarr.json": 0}
    assert objects.get_many([KEY, "zarr.json", "e1/x", "zarr.json/x"], limit=3) == [b"one", b"", None, None]
    objects.delete(KEY)
    objects.delete(KEY)
    objects.delete("never/there")
    assert objects.get(KEY, limit=9) is None
    objects.flush()
    assert sorted(path.name for path in Path(objects.location).iterdir()) == ["zarr.json"], "an empty folder was left"
    objects.put(KEY, b"two")
    assert objects.get(KEY, limit=9) == b"two"


def test_sizes_count_temporary_and_foreign_files_and_links_to_files(objects, tmp_path):
    objects.put(KEY, b"one")
    folder = Path(objects.location)
    (folder / "e0" / f"{TEMPORARY}left").write_bytes(b"12345")
    (folder / "README").write_bytes(b"12")
    (folder / "link").symlink_to("README")
    assert objects.sizes() == {"README": 2, f"e0/{TEMPORARY}left": 5, KEY: 3, "link": len("README")}
    objects.clear_temporary()
    assert list(objects.sizes()) == ["README", KEY, "link"]


def test_a_file_longer_than_the_limit_is_refused_without_being_read(objects):
    objects.put(KEY, b"")
    os.truncate(Path(objects.location, KEY), 2**30)
    with pytest.raises(FormatError, match=rf"{KEY} has 1,073,741,824 bytes, at most 1,000"):
        objects.get(KEY, limit=1000)
    objects.put(KEY, bytes(1000))
    assert objects.get(KEY, limit=1000) == bytes(1000)


def make_pipe(path, elsewhere):
    os.mkfifo(path)


def make_folder(path, elsewhere):
    path.mkdir()


def make_link(path, elsewhere):
    path.symlink_to(elsewhere)


def make_socket(path, elsewhere):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [make_pipe, make_folder, make_link, make_socket], ids=lambda make: make.__name__)
def test_what_is_no_regular_file_is_refused_by_name_and_never_waited_for(tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    (tmp_path / "elsewhere").write_bytes(b"secret")
    objects = LocalObjects(tmp_path, durable=False)
    (tmp_path / "e0").mkdir()
    make(Path("e0/x"), tmp_path / "elsewhere")
    before = open_descriptors()
    for read in (lambda: objects.get("e0/x", limit=100), lambda: objects.view("e0/x")):
        with pytest.raises(FormatError, match=r"e0/x is (no regular file|a symbolic link)"):
            read()
    assert open_descriptors() == before


def test_no_folder_on_the_way_may_be_a_link(objects, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"secret")
    Path(objects.location).mkdir()
    Path(objects.location, "e0").symlink_to(tmp_path / "elsewhere")
    for use in (
        lambda: objects.get("e0/file", limit=100),
        lambda: objects.view("e0/file"),
        lambda: objects.put("e0/file", b""),
        lambda: objects.put("e0/deeper/file", b""),
        lambda: objects.delete("e0/file"),
        lambda: objects.sizes(),
    ):
        with pytest.raises(FormatError, match="e0 is a symbolic link"):
            use()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"secret"
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_a_view_stays_as_it_was_and_its_identity_tells_that_the_file_did_not(objects):
    objects.put(KEY, b"first")
    view = objects.view(KEY)
    assert (view.data[:], view.identity) == (b"first", objects.identity(KEY))
    objects.put(KEY, b"other")
    assert view.data[:] == b"first"
    assert objects.identity(KEY) != view.identity
    objects.put(KEY, b"")
    assert objects.views([KEY, "missing"])[0].data == b""
    assert objects.views([KEY, "missing"])[1] is None
    objects.delete(KEY)
    assert objects.identity(KEY) is None
    assert view.data[:] == b"first"


def test_reading_keeps_no_descriptor_open(objects):
    objects.put(KEY, b"one")
    before = open_descriptors()
    for _ in range(50):
        objects.get(KEY, limit=3)
        objects.view(KEY)  # unmapped at once, as nobody keeps it
        objects.put(KEY, b"one")
    assert open_descriptors() == before


def test_a_folder_that_disappears_under_the_writer_is_made_again(objects):
    objects.put(KEY, b"one")
    objects.delete(KEY)
    Path(objects.location, "e0/rows").rmdir()
    objects.put(KEY, b"two")
    assert objects.get(KEY, limit=3) == b"two"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_at_any_line_of_a_put_leaves_the_old_or_the_new_object(tmp_path, error):
    watched = {local.__file__, files.__file__}
    for at in range(200):
        objects = LocalObjects(tmp_path / str(at), durable=True)
        objects.put(KEY, b"old")
        left = at

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename not in watched:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    sys.settrace(None)
                    raise error
            return trace

        sys.settrace(trace)
        try:
            objects.put(KEY, b"new one")
        except error:
            interrupted = True
        else:
            interrupted = False
        finally:
            sys.settrace(None)
        assert objects.get(KEY, limit=10) in {b"old", b"new one"}
        objects.clear_temporary()
        assert list(objects.sizes()) == [KEY]
        if not interrupted:
            break
    else:
        pytest.fail("the put never ended")
    assert at > 15, "lines were missed"
    assert objects.get(KEY, limit=10) == b"new one"


@pytest.mark.parametrize("name", ["open", "write", "fsync", "close", "replace"])
@pytest.mark.parametrize(
    ("number", "expected", "words"),
    [
        (errno.ENOSPC, StoreIOError, "the disk is full"),
        (errno.EDQUOT, StoreIOError, "the disk is full"),
        (errno.EIO, StoreIOError, "last committed state"),
        (errno.EACCES, ReadOnlyError, "check the permissions"),
        (errno.EROFS, ReadOnlyError, "check the permissions"),
        (errno.EMFILE, StoreIOError, "Too many open files"),
    ],
)
def test_a_failing_put_says_what_failed_and_leaves_nothing(objects, monkeypatch, name, number, expected, words):
    objects = LocalObjects(Path(objects.location), durable=True)
    objects.put(KEY, b"old")
    real = getattr(os, name)

    def fail(*arguments, **options):
        if name == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(expected, match=rf"{KEY} cannot be written.*{words}"):
            objects.put(KEY, b"new")
    assert objects.get(KEY, limit=3) == b"old"
    assert leftovers(objects.location) == []


def test_a_write_that_the_system_does_in_parts_is_completed(objects, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:3])))
    objects.put(KEY, b"0123456789")
    assert objects.get(KEY, limit=10) == b"0123456789"


def test_durable_puts_synchronise_files_at_once_and_folders_at_flush(tmp_path, monkeypatch):
    synchronised = []
    real = os.fsync

    def fsync(descriptor):
        synchronised.append(
            str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(str(tmp_path)).partition(TEMPORARY)[0]
        )
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    objects = LocalObjects(tmp_path / "store", durable=True)
    objects.put(KEY, b"one")
    assert synchronised == ["/store/e0/rows/"]
    objects.flush()
    assert synchronised[1:] == ["/store", "/store/e0", "/store/e0/rows"]
    objects.flush()
    assert len(synchronised) == 4
    objects = LocalObjects(tmp_path / "other", durable=False)
    objects.put(KEY, b"one")
    objects.flush()
    assert len(synchronised) == 4


def test_a_commit_makes_what_it_refers_to_durable_before_and_itself_after(tmp_path, monkeypatch):
    objects = LocalObjects(tmp_path / "store", durable=True)
    objects.acquire(take=False)
    calls = []
    for name in ("flush", "put"):
        real = getattr(objects, name)
        monkeypatch.setattr(objects, name, lambda *given, name=name, real=real: (calls.append(name), real(*given)))
    objects.commit("state/zarr.json", b"{}")
    assert calls == ["flush", "put", "flush"]
    objects.release()


def test_a_file_in_the_place_of_the_folder_is_no_store(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    objects = LocalObjects(tmp_path / "file")
    assert objects.get("zarr.json", limit=9) is None
    with pytest.raises(StoreExistsError, match="is a file"):
        objects.sizes()


# --- the budget ---


def test_the_budget_counts_the_old_object_beside_the_new_one(objects):
    budgeted = BudgetedObjects(objects, limit=100)
    budgeted.acquire(take=False)
    budgeted.limit = LOCK_BYTES + 100
    budgeted.measure()
    assert (budgeted.sizes, budgeted.total_bytes) == ({LOCK_KEY: LOCK_BYTES}, LOCK_BYTES)
    budgeted.put("a", bytes(60))
    for put in (budgeted.put, budgeted.commit):
        with pytest.raises(BudgetError, match=r"a needs 41 bytes beside 316, the budget is 356; nothing was put"):
            put("a", bytes(41))
    assert objects.get("a", limit=100) == bytes(60)
    budgeted.commit("a", bytes(40))
    assert budgeted.total_bytes == LOCK_BYTES + 40 == sum(objects.sizes().values())
    budgeted.put("b", bytes(60))
    budgeted.delete("a")
    budgeted.delete("a")
    assert budgeted.sizes == {LOCK_KEY: LOCK_BYTES, "b": 60} == objects.sizes()
    budgeted.release()


def test_the_budget_measures_what_others_left(objects):
    objects.put("a", bytes(10))
    budgeted = BudgetedObjects(objects, limit=100)
    budgeted.measure()
    Path(objects.location, "foreign").write_bytes(bytes(95))
    budgeted.measure()
    assert budgeted.total_bytes == 105
    with pytest.raises(BudgetError):
        budgeted.put("b", b"")
    budgeted.delete("foreign")
    budgeted.put("b", b"")
    assert budgeted.sizes == {"a": 10, "b": 0}


# --- places ---


def test_a_path_becomes_absolute_and_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("store", Path("store"), tmp_path / "store"):
        found = objects_at(place, durable=False)
        assert (found.location, found.place) == (str(tmp_path / "store"),) * 2
    assert list(tmp_path.iterdir()) == []


def test_a_local_zarr_store_is_its_folder(tmp_path):
    zarr = pytest.importorskip("zarr.storage")
    found = objects_at(zarr.LocalStore(tmp_path / "store"), durable=False)
    assert isinstance(found, LocalObjects)
    assert found.place == str(tmp_path / "store")
    found.acquire(take=False)
    found.release()
    store = zarr.LocalStore(tmp_path / "store", read_only=True)
    found = objects_at(store, durable=False)
    assert found.place is store
    with pytest.raises(ReadOnlyError, match="read-only"):
        found.acquire(take=False)


@pytest.mark.parametrize("place", ["s3://bucket/x", "file:///tmp/x", "memory://x", Path("s3://bucket/x")], ids=str)
def test_an_address_is_no_folder(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SchemaError, match="pass a Zarr store, such as"):
        objects_at(place, durable=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place", [42, None, b"x", b"a\0b", "", "a\0b", "a\ud800b", ["x"], np.zeros(1)], ids=lambda place: ascii(place)[:12]
)
def test_what_is_no_place_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SchemaError, match="expected the path of a folder"):
        objects_at(place, durable=False)
    assert list(tmp_path.iterdir()) == []
