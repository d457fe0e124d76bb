"""The lock of a folder: one writer, told apart from the dead, noticed when it is taken away."""

import contextlib
import errno
import fcntl
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exmem.errors import FormatError, LockedError, ReadOnlyError, StoreIOError
from exmem.store.objects import LOCK_BYTES, LOCK_KEY, TEMPORARY, LocalObjects, file_lock, files, local
from exmem.store.objects.lock import FREE, Holder, lock_document, parse_holder, this_process

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def at(folder):
    return LocalObjects(folder, durable=False)


def content(folder):
    return (folder / LOCK_KEY).read_bytes()


def holder(folder):
    return json.loads(content(folder))["attributes"]["exmem"]


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def written_by(folder, program):
    """Run a program in a process of its own until it prints a line."""
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom exmem.store.objects import LocalObjects\n"
        f"objects = LocalObjects(Path({str(folder)!r}), durable=False)\n{program}\nprint('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_lock_has_the_same_size_whether_it_is_held_or_free(folder):
    objects = at(folder)
    assert objects.acquire(take=False) is False
    assert len(content(folder)) == LOCK_BYTES
    assert holder(folder)["pid"] == os.getpid()
    objects.release()
    assert content(folder) == FREE
    assert (len(FREE), holder(folder)) == (LOCK_BYTES, {})
    assert list(objects.sizes()) == [LOCK_KEY]
    longest = Holder(4_194_304, "h" * 64, "9" * 12, "2026-01-01T00:00:00Z", "0" * 16)
    assert len(lock_document(longest)) == LOCK_BYTES
    assert parse_holder(lock_document(longest)) == longest


def test_the_lock_is_a_zarr_group(folder):
    objects = at(folder)
    objects.acquire(take=False)
    zarr = pytest.importorskip("zarr")
    assert dict(zarr.open_group(folder / "lock", mode="r").attrs)["exmem"]["pid"] == os.getpid()
    objects.release()


def test_a_second_writer_is_refused_by_name_until_the_first_ends(folder):
    first, second = at(folder), at(folder)
    first.acquire(take=False)
    for take in (False, True):
        with pytest.raises(LockedError, match=f"is open for writing by process {os.getpid()} on"):
            second.acquire(take=take)
    first.check_lock()
    first.release()
    first.release()
    assert second.acquire(take=False) is False
    with pytest.raises(LockedError, match="not locked by this writer"):
        first.check_lock()
    with pytest.raises(LockedError):
        first.commit("a", b"")
    second.check_lock()
    second.release()


def test_an_end_that_is_not_clean_is_told_to_the_next_writer_once(folder):
    objects = at(folder)
    objects.acquire(take=False)
    objects.release(clean=False)
    assert objects.acquire(take=False) is True
    objects.release()
    assert objects.acquire(take=False) is False
    objects.release()


@pytest.mark.timeout(60)
def test_the_lock_of_a_process_outlives_everything_but_the_process(folder):
    with written_by(folder, "objects.acquire(take=False)") as process:
        objects = at(folder)
        for take in (False, True):
            with pytest.raises(LockedError, match=f"process {process.pid} on"):
                objects.acquire(take=take)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert objects.acquire(take=False) is True
        objects.release()


@pytest.mark.timeout(60)
def test_a_process_that_ends_without_closing_is_a_dead_writer(folder):
    with written_by(folder, "objects.acquire(take=False)\nprint('ready', flush=True)\nsys.exit()") as process:
        process.wait()
        assert at(folder).acquire(take=False) is True


def test_a_writer_that_was_forgotten_is_a_dead_writer(folder):
    objects = at(folder)
    objects.acquire(take=False)
    del objects
    gc.collect()
    objects = at(folder)
    assert objects.acquire(take=False) is True
    objects.release()


def test_forgetting_an_old_writer_does_not_end_a_new_one(folder, tmp_path):
    first = at(folder)
    first.acquire(take=False)
    first.release()
    second = at(tmp_path / "other")
    second.acquire(take=False)  # it may get the descriptor that the first one had
    del first
    gc.collect()
    second.check_lock()
    with pytest.raises(LockedError):
        at(tmp_path / "other").acquire(take=False)
    second.release()


def test_what_another_host_left_is_taken_only_when_told_to(folder):
    at(folder).acquire(take=False)
    elsewhere = this_process("")._replace(host="elsewhere", pid=7)
    gc.collect()
    (folder / LOCK_KEY).write_bytes(lock_document(elsewhere))
    objects = at(folder)
    with pytest.raises(LockedError, match=r"process 7 on elsewhere since .*take_lock=True"):
        objects.acquire(take=False)
    assert parse_holder(content(folder)) == elsewhere
    assert objects.acquire(take=True) is True
    objects.release()


@pytest.mark.parametrize("left", [b"", b"{", bytes(LOCK_BYTES), b"[" * 10_000, b" " * 3 * LOCK_BYTES])
def test_a_damaged_lock_that_nobody_holds_is_that_of_a_dead_writer(folder, left):
    (folder / "lock").mkdir(parents=True)
    (folder / LOCK_KEY).write_bytes(left)
    objects = at(folder)
    assert objects.acquire(take=False) is True
    assert len(content(folder)) == LOCK_BYTES
    objects.release()
    assert content(folder) == FREE


def test_a_reused_pid_is_not_the_holder(folder):
    objects = at(folder)
    objects.acquire(take=False)
    objects.release()
    (folder / LOCK_KEY).write_bytes(lock_document(this_process("")._replace(process_start="1")))
    assert at(folder).acquire(take=False) is True


def test_a_zombie_does_not_live():
    process = subprocess.Popen([sys.executable, "-c", ""])
    named = this_process("")._replace(pid=process.pid)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    start = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    assert named._replace(process_start=start).lives is False
    process.wait()


@pytest.mark.parametrize("pid", [0, -1, 2**70])
def test_a_pid_that_cannot_be_is_dead(pid):
    assert this_process("")._replace(pid=pid).lives is False


def test_a_free_lock_that_is_held_for_a_moment_is_waited_for(folder):
    objects = at(folder)
    objects.acquire(take=False)
    objects.release()
    with written_by(folder, "import fcntl\nfcntl.flock(os.open(objects.location + '/lock/zarr.json', 2), 2)") as other:
        other.send_signal(signal.SIGKILL)
        assert objects.acquire(take=False) is False
    objects.release()


def test_a_lock_that_is_removed_or_replaced_is_noticed_before_the_next_commit(folder):
    for replace in (False, True):
        objects = at(folder)
        objects.acquire(take=False)
        objects.commit("state/zarr.json", b"1")
        (folder / LOCK_KEY).unlink()
        if replace:
            (folder / LOCK_KEY).write_bytes(FREE)
        with pytest.raises(LockedError, match="removed or replaced"):
            objects.commit("state/zarr.json", b"2")
        assert objects.get("state/zarr.json", limit=9) == b"1"
        objects.release()


def test_a_lock_that_is_removed_while_it_is_being_opened_is_not_taken(folder, monkeypatch):
    first = at(folder)
    first.acquire(take=False)
    first.release()
    real, removed = fcntl.flock, []

    def flock(descriptor, operation):
        if not removed:
            removed.append((folder / LOCK_KEY).unlink())
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    objects = at(folder)
    assert objects.acquire(take=False) is False
    objects.check_lock()
    objects.release()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_neither_holds_nor_ends_the_lock(folder):
    objects = at(folder)
    objects.acquire(take=False)
    child = os.fork()
    if child == 0:
        try:
            objects.release()
            with contextlib.suppress(LockedError):
                objects.check_lock()
                os._exit(1)
            with contextlib.suppress(LockedError):
                objects.commit("a", b"")
                os._exit(2)
            del objects
            gc.collect()
            os._exit(0)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    objects.check_lock()
    with pytest.raises(LockedError):
        at(folder).acquire(take=False)
    objects.release()


@pytest.mark.timeout(60)
def test_a_child_that_outlives_the_writer_does_not_keep_the_lock(folder):
    program = "objects.acquire(take=False)\nchild = os.fork()\nif not child:\n    time.sleep(60)\n    os._exit(0)\n"
    with written_by(folder, f"{program}Path({str(folder)!r}, 'child').write_text(str(child))") as process:
        process.kill()
        process.wait()
        child = int((folder / "child").read_text())
        os.kill(child, 0)
        try:
            assert at(folder).acquire(take=False) is True
        finally:
            os.kill(child, signal.SIGKILL)


def race(folder, start, results, turns):
    start.wait()
    for _ in range(turns):
        objects = LocalObjects(folder, durable=False)
        try:
            objects.acquire(take=False)
        except LockedError:
            continue
        counter = folder / "inside"
        descriptor = os.open(counter, os.O_CREAT | os.O_EXCL | os.O_WRONLY)  # fails if somebody else is inside
        os.close(descriptor)
        counter.unlink()
        objects.release()
        results.put(os.getpid())
    results.put(None)


@pytest.mark.timeout(120)
def test_processes_that_race_for_a_lock_are_never_inside_at_once(folder):
    start, results = SPAWN.Event(), SPAWN.Queue()
    processes = [SPAWN.Process(target=race, args=(folder, start, results, 100)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    inside, ended = 0, 0
    while ended < len(processes):
        if results.get(timeout=60) is None:
            ended += 1
        else:
            inside += 1
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert inside >= 100
    assert content(folder) == FREE
    assert [path for path in folder.rglob("*") if path.name.startswith(TEMPORARY)] == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_as_the_cause(folder, monkeypatch, number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    before = open_descriptors()
    with pytest.raises(StoreIOError, match="this file system has no locks"):
        at(folder).acquire(take=False)
    assert open_descriptors() == before


def test_a_file_system_without_links_gets_its_lock_file_too(folder, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    objects = at(folder)
    assert objects.acquire(take=False) is False
    assert list(objects.sizes()) == [LOCK_KEY]
    objects.release()


@pytest.mark.parametrize("name", ["pwrite", "ftruncate"])
def test_a_lock_that_cannot_be_written_is_not_held(folder, monkeypatch, name):
    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(StoreIOError, match="cannot be locked"):
            at(folder).acquire(take=False)
    objects = at(folder)
    objects.acquire(take=False)
    objects.release()


@pytest.mark.parametrize("change", ["acquire", "release"])
def test_an_interrupt_at_any_line_leaves_a_lock_that_can_be_taken(folder, change):
    for at_line in range(200):
        place = folder / str(at_line)
        objects = at(place)
        if change == "release":
            objects.acquire(take=False)
        left = at_line

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename not in {local.__file__, files.__file__, file_lock.__file__}:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            objects.acquire(take=False) if change == "acquire" else objects.release()
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
        finally:
            sys.settrace(None)
        del objects
        gc.collect(1)  # what was made just now
        next_one = at(place)
        unclean = next_one.acquire(take=False)
        next_one.clear_temporary()
        assert next_one.sizes() == {LOCK_KEY: LOCK_BYTES}
        next_one.release()
        if not interrupted:
            assert unclean == (change == "acquire")
            break
    else:
        pytest.fail("it never ended")
    assert at_line > 10, "lines were missed"


def test_a_read_only_folder_is_named(folder, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(ReadOnlyError, match="Read-only file system"):
        at(folder).acquire(take=False)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: Path(path).symlink_to("/etc/hostname")])
def test_a_lock_that_is_no_file_is_refused(folder, make):
    (folder / "lock").mkdir(parents=True)
    make(folder / LOCK_KEY)
    with pytest.raises(FormatError, match=r"lock/zarr.json is (no regular file|a symbolic link)"):
        at(folder).acquire(take=True)
