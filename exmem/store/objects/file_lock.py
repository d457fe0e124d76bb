"""The lock of a folder: a file that is held by flock, which the operating system gives back when the writer dies."""

import contextlib
import errno
import fcntl
import itertools
import os
import time
import weakref
from typing import NamedTuple

from exmem.errors import LockedError, StoreIOError
from exmem.store.objects.files import new_temporary, open_regular, read_all, remove, write_new
from exmem.store.objects.lock import FREE, LOCK_BYTES, is_free, lock_document, parse_holder, this_process, who

__all__ = ["FileLock"]

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_PATIENCE_S = 0.5  # how long a lock may be held by nobody alive: it is being given back, or its holder just died


class _Held(NamedTuple):
    descriptor: int
    file: tuple[int, int]  # device, inode


_held: dict[int, _Held] = {}  # the locks of this process
_numbers = itertools.count()  # of locks: a descriptor is given out again after it was closed


class FileLock:
    """A lock file of LOCK_BYTES bytes, never deleted, that says who holds it.

    Its folder is there when the lock is acquired; `location` names the store in messages. Methods raise OSError; the
    caller says what failed.
    """

    def __init__(self, path: str, location: str, *, durable: bool) -> None:
        self._path = path
        self._location = location
        self._durable = durable
        self._number = -1  # in `_held`, while it is held

    def acquire(self, *, take: bool) -> bool:
        """Hold the file; True when the last holder did not give it back. LockedError when it may not be held."""
        if self._number in _held:
            raise self._refusal(self._content(), take=take)
        try:
            self._wait(take=take)
            before = os.pread(_held[self._number].descriptor, LOCK_BYTES + 1, 0)
            holder = parse_holder(before)
            if holder is not None and holder.lives is None and not take:
                raise self._refusal(before, take=take)
            self._say(lock_document(this_process("")))
        except BaseException:
            _let_go(self._number)
            raise
        return not is_free(before)

    def check(self) -> None:
        """Raise LockedError when the file is not held, or was removed or replaced."""
        held = _held.get(self._number)
        if held is None:
            raise LockedError(f"{self._location} is not locked by this writer; open it again")
        if not self._is_there(held):
            raise LockedError(
                f"the lock of {self._location} was removed or replaced, so another writer may be at work; "
                "nothing was committed, open it again"
            )

    def release(self, *, clean: bool) -> None:
        """Give the file back if it is held; `clean` says that the writer finished."""
        if self._number in _held:
            try:
                if clean:
                    self._say(FREE)
            finally:
                _let_go(self._number)

    def _say(self, content: bytes) -> None:
        descriptor = _held[self._number].descriptor
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, LOCK_BYTES)
        if self._durable:  # otherwise a loss of power could make an unfinished writer look like a finished one
            os.fsync(descriptor)

    def _wait(self, *, take: bool) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self._try():
            content = self._content()
            holder = parse_holder(content)
            if (holder is not None and holder.lives is not False) or time.monotonic() > deadline:
                raise self._refusal(content, take=take)
            time.sleep(0.01)

    def _try(self) -> bool:
        """Lock the file; False when somebody else holds it."""
        while True:
            try:
                descriptor, status = open_regular(self._path, os.O_RDWR)
            except FileNotFoundError:
                self._create()
                continue
            self._number = next(_numbers)
            _held[self._number] = held = _Held(descriptor, (status.st_dev, status.st_ino))
            weakref.finalize(self, _let_go, self._number)  # a writer that is forgotten is a writer that died
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _let_go(self._number)
                return False
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    raise StoreIOError(
                        f"{self._location}: this file system has no locks ({error.strerror}), so two writers could not "
                        "be kept apart; move the store to one that has, or only read it"
                    ) from error
                raise
            if self._is_there(held):
                return True
            _let_go(self._number)  # it was removed while it was being opened

    def _create(self) -> None:
        temporary = f"{self._path.rpartition('/')[0]}/{new_temporary()}"
        try:
            write_new(temporary, FREE, durable=self._durable)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._path)  # unlike a rename it never replaces the lock of somebody else
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with contextlib.suppress(FileExistsError):
                write_new(self._path, FREE, durable=self._durable)
        finally:
            remove(temporary)

    def _content(self) -> bytes | None:
        try:
            descriptor, status = open_regular(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return read_all(descriptor, min(status.st_size, LOCK_BYTES))
        finally:
            os.close(descriptor)

    def _is_there(self, held: _Held) -> bool:
        try:
            status = os.lstat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (status.st_dev, status.st_ino) == held.file

    def _refusal(self, content: bytes | None, *, take: bool) -> LockedError:
        advice = "close it there, open with mode 'r', or, if that process is surely gone, open with take_lock=True"
        if take:
            advice = "close it there or open with mode 'r': take_lock=True takes no lock that is really held"
        return LockedError(f"{self._location} is open for writing by {who(parse_holder(content))}; {advice}")


def _let_go(number: int) -> None:
    if number in _held:
        os.close(_held.pop(number).descriptor)  # one line: an interrupt between the two would keep the lock for ever


def _let_go_in_child() -> None:
    # A child shares the parent's locks: as long as its descriptors are open they would outlive the parent.
    for number in list(_held):
        _let_go(number)


os.register_at_fork(after_in_child=_let_go_in_child)
