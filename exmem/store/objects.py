"""Objects: named bytes that are put and deleted atomically, on a local disk or in any Zarr store."""

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from exmem.errors import FormatError, ReadOnlyError, StoreIOError

__all__ = ["TEMPORARY", "LocalObjects", "Objects"]

TEMPORARY = ".tmp-"


class Objects(Protocol):
    """What a store needs from the place it lies in."""

    location: str

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object, temporary ones too."""

    def keys(self, folder: str) -> list[str]:
        """Return the keys of the objects directly in a folder, sorted."""

    def get(self, key: str) -> bytes | None:
        """Return an object, None when it is missing."""

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return several objects; at once where that is faster."""

    def view(self, key: str) -> "bytes | mmap.mmap | None":
        """Return an object for random access, None when it is missing; later puts do not change it."""

    def views(self, keys: Sequence[str]) -> "list[bytes | mmap.mmap | None]":
        """Return several objects for random access; at once where that is faster."""

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object; afterwards, also after a crash, it is the old or the new one."""

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""

    def hold(self, key: str, data: bytes, *, take: bool) -> tuple[bool, bytes | None]:
        """Hold a lock object; return whether it is held now, and what it contained before (None: it was not there).

        It is put only when it was not there, or with `take`.
        """

    def let_go(self, key: str) -> None:
        """Hold a lock object no longer; the object stays."""

    def flush(self) -> None:
        """Make everything put and deleted so far durable; before this a loss of power may undo it."""


class LocalObjects:
    """Files below a folder.

    Parameters
    ----------
    root : Path
        The folder.
    durable : bool
        Whether files are synchronised with the disk as they are put, and folders at `flush`.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self.location = str(root)
        self._durable = durable
        self._temporary = itertools.count()
        self._unsynchronised: set[Path] = set()
        self._locks: dict[str, int] = {}  # key -> descriptor

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file, temporary ones too.

        Returns
        -------
        dict of str to int
            Key -> bytes.

        Raises
        ------
        FormatError
            If a folder inside is a symbolic link, which could lead out of the store.
        """
        found = {}
        for folder, inner, names in os.walk(self.root):
            for name in inner:
                if Path(folder, name).is_symlink():
                    raise FormatError(f"{Path(folder, name)} is a symbolic link; a store holds real folders only")
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # replaced by the writer while a reader looks
                    found[path.relative_to(self.root).as_posix()] = path.lstat().st_size
        return dict(sorted(found.items()))

    def keys(self, folder: str) -> list[str]:
        """Return the keys of the files directly in a folder, sorted."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(f"{folder}/{entry.name}" for entry in entries if not entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failure(folder, "listed", error) from error

    def get(self, key: str) -> bytes | None:
        """Return a file's content, None when it is missing."""
        try:
            with self._open(key) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failure(key, "read", error) from error

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the content of several files, None for those that are missing."""
        return [self.get(key) for key in keys]

    def view(self, key: str) -> bytes | mmap.mmap | None:
        """Map a file, None when it is missing; a later put replaces the file, not the mapping."""
        try:
            with self._open(key) as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return b""
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failure(key, "read", error) from error

    def views(self, keys: Sequence[str]) -> list[bytes | mmap.mmap | None]:
        """Map several files, None for those that are missing."""
        return [self.view(key) for key in keys]

    def _open(self, key: str) -> BinaryIO:
        # A link could lead out of the folder: neither the file nor a folder on the way may be one.
        path = self.root
        for part in key.split("/")[:-1]:
            path = path / part
            if path.is_symlink():
                raise OSError(errno.ELOOP, "a folder of the store is a symbolic link", str(path))
        return os.fdopen(os.open(self.root / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")

    def put(self, key: str, data: bytes) -> None:
        """Write a temporary file beside the target, synchronise it, rename it over the target."""
        path = self.root / key
        temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{next(self._temporary)}")
        try:
            self._make_folder(path.parent)
            try:
                self._write(temporary, data)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self._unsynchronised.add(path.parent)
        except OSError as error:
            raise self._failure(key, "written", error) from error

    def hold(self, key: str, data: bytes, *, take: bool) -> tuple[bool, bytes | None]:
        """Hold a lock file by flock; the operating system gives it back when the process dies.

        Parameters
        ----------
        key : str
            Name of the file.
        data : bytes
            Who holds it.
        take : bool
            Whether it is written although it says something else.

        Returns
        -------
        held : bool
            Whether this object holds it now.
        before : bytes or None
            What it contained; None when it was not there.
        """
        path = self.root / key
        try:
            if key not in self._locks:
                self._make_folder(path.parent)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    gone = not path.exists() or os.fstat(descriptor).st_ino != path.stat().st_ino
                except BlockingIOError:
                    os.close(descriptor)
                    return False, self.get(key) or b""
                except BaseException:
                    os.close(descriptor)
                    raise
                if gone:  # the holder deleted it while it was being opened here
                    os.close(descriptor)
                    return False, None
                self._locks[key] = descriptor
            descriptor = self._locks[key]
            before = os.pread(descriptor, 2**16, 0)
            if take or not before:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, data, 0)
            return True, before or None
        except OSError as error:
            raise self._failure(key, "locked", error) from error

    def let_go(self, key: str) -> None:
        """Hold a lock file no longer."""
        descriptor = self._locks.pop(key, None)
        if descriptor is not None:
            os.close(descriptor)

    def delete(self, key: str) -> None:
        """Delete a file; a missing one is no error."""
        path = self.root / key
        try:
            path.unlink(missing_ok=True)
            self._unsynchronised.add(path.parent)
        except OSError as error:
            raise self._failure(key, "deleted", error) from error

    def flush(self) -> None:
        """Synchronise the folders of what was put and deleted."""
        while self._unsynchronised:
            folder = min(self._unsynchronised)
            try:
                self._sync_folder(folder)
            except OSError as error:
                raise self._failure(str(folder), "synchronised", error) from error
            self._unsynchronised.discard(folder)

    def _write(self, path: Path, data: bytes) -> None:
        # A file of this name is what a dead process of the same pid left.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())

    def _make_folder(self, folder: Path) -> None:
        missing = list(itertools.takewhile(lambda path: not path.exists(), [folder, *folder.parents]))
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._unsynchronised.add(path.parent)

    def _sync_folder(self, folder: Path) -> None:
        if self._durable and folder.is_dir():
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _failure(self, key: str, done: str, error: OSError) -> Exception:
        where = f"{self.location}/{key}"
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            return ReadOnlyError(f"{where} cannot be {done} ({error.strerror}); check the permissions of the folder")
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return StoreIOError(f"{where} cannot be {done}: the disk is full; free some space and try again")
        return StoreIOError(f"{where} cannot be {done} ({error}); the store holds its last committed state")
