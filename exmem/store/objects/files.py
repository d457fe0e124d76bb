"""Single files: only regular ones are opened, what is written is whole or removed, and what the disk's errors mean."""
# ruff: noqa: PTH108 -- pathlib takes longer than the system call

import contextlib
import errno
import itertools
import os
import secrets
import stat

from exmem.errors import FormatError, ReadOnlyError, StoreIOError
from exmem.store.objects.contract import TEMPORARY

__all__ = [
    "failure",
    "is_link",
    "new_temporary",
    "open_regular",
    "read_all",
    "remove",
    "synchronise",
    "write_new",
]

_SAFELY = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in the place of a file must not block
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_token = secrets.token_hex(4)  # of this process: pids are given out again
_numbers = itertools.count()


def new_temporary() -> str:
    """Return a name that no other file has."""
    # The pid, because a forked child has the same token and goes on with the same numbers.
    return f"{TEMPORARY}{_token}-{os.getpid()}-{next(_numbers)}"


def open_regular(path: str, flags: int = os.O_RDONLY) -> tuple[int, os.stat_result]:
    """Open a file; FormatError when it is a pipe, a device or a folder."""
    descriptor = os.open(path, flags | _SAFELY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def read_all(descriptor: int, size: int) -> bytes:
    """Read a file of this size from its start; less when it has become shorter."""
    data = os.read(descriptor, size)
    while 0 < len(data) < size:  # the operating system reads at most 2 GiB at once
        more = os.read(descriptor, size - len(data))
        if not more:
            break
        data += more
    return data


def write_new(path: str, data: bytes, *, durable: bool) -> None:
    """Write a file that is not there; the disk has it afterwards if it is to be durable."""
    descriptor = os.open(path, _NEW, 0o666)
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, memoryview(data)[written:])
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file if it is there and can be removed."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def synchronise(folder: str) -> None:
    """Make what was created, renamed and removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_link(path: str) -> FormatError:
    """Return the error for a symbolic link, which could lead out of the store."""
    return FormatError(f"{path} is a symbolic link; a store holds real files and folders only")


def failure(path: str, done: str, error: OSError) -> Exception:
    """Return the error that says what could not be done with a file, and what to do about it."""
    path = path.rstrip("/")
    if error.errno == errno.ELOOP:
        return is_link(path)
    if error.errno in {errno.ENXIO, errno.EISDIR}:  # a socket, a folder
        return _not_regular(path)
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM} and done not in {"read", "listed"}:
        return ReadOnlyError(f"{path} cannot be {done} ({error.strerror}); check the permissions of the folder")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreIOError(f"{path} cannot be {done}: the disk is full; free some space and try again")
    return StoreIOError(f"{path} cannot be {done} ({error}); the store holds its last committed state")


def _not_regular(path: str) -> FormatError:
    return FormatError(f"{path} is no regular file; a store holds nothing else")
