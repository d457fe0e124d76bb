"""Objects: named bytes that are put and deleted atomically, on a local disk or in any Zarr store."""

import contextlib
import errno
import heapq
import itertools
import mmap
import os
from collections.abc import Collection, Container
from pathlib import Path
from typing import BinaryIO, Protocol

from exmem.errors import BudgetError, FormatError, ReadOnlyError, StoreIOError

__all__ = ["TEMPORARY", "BudgetedObjects", "LocalObjects", "Objects"]

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

    def view(self, key: str) -> "bytes | mmap.mmap | None":
        """Return an object for random access, None when it is missing; later puts do not change it."""

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object; afterwards, also after a crash, it is the old or the new one."""

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Create an object; return False, and change nothing, when it is already there."""

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

    def put_new(self, key: str, data: bytes) -> bool:
        """Create a file with its content in one step (by a hard link); return False when it is already there."""
        path = self.root / key
        temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{next(self._temporary)}")
        try:
            self._make_folder(path.parent)
            try:
                self._write(temporary, data)
                os.link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            self._unsynchronised.add(path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._failure(key, "written", error) from error
        return True

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
        with path.open("xb") as file:
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


class BudgetedObjects:
    """Objects under a strict budget: the one place where bytes are put, so that none is put beyond the budget.

    Parameters
    ----------
    objects : Objects
        Where the objects lie.
    max_bytes : int
        Bytes that all objects together may take at any instant, the one being replaced included.
    """

    def __init__(self, objects: Objects, *, max_bytes: int) -> None:
        self.objects = objects
        self.location = objects.location
        self.max_bytes = max_bytes
        self.sizes: dict[str, int] = {}
        self.total_bytes = 0
        self._largest: dict[str, list[tuple[int, str]]] = {}  # heaps; an entry whose size is another now is stale
        for key, size in objects.sizes().items():
            self._record(key, size)

    def put(self, key: str, data: bytes) -> None:
        """Put an object if the old and the new one together stay within the budget.

        Parameters
        ----------
        key : str
            Name of the object.
        data : bytes
            Its content.

        Raises
        ------
        BudgetError
            If it would not fit; nothing was put.
        """
        self._admit(key, data)
        self.objects.put(key, data)
        self._record(key, len(data))

    def put_new(self, key: str, data: bytes) -> bool:
        """Put an object that is not there yet, within the budget.

        Parameters
        ----------
        key : str
            Name of the object.
        data : bytes
            Its content.

        Returns
        -------
        bool
            False when it was already there; nothing was put then.

        Raises
        ------
        BudgetError
            If it would not fit; nothing was put.
        """
        self._admit(key, data)
        made = self.objects.put_new(key, data)
        if made:
            self._record(key, len(data))
        return made

    def flush(self) -> None:
        """Make everything put and deleted so far durable."""
        self.objects.flush()

    def delete(self, key: str) -> None:
        """Delete an object.

        Parameters
        ----------
        key : str
            Name of the object.
        """
        self.objects.delete(key)
        self._record(key, 0)

    def largest(self, *, without: Container[str] = (), groups: Collection[str] = ()) -> int:
        """Return the size of the largest object.

        Parameters
        ----------
        without : container of str
            Keys that do not count.
        groups : collection of str
            Arrays whose chunks do not count, as paths.

        Returns
        -------
        int
            Bytes; 0 when there is none.
        """
        largest = 0
        for group, heap in self._largest.items():
            passed = []
            while group not in groups and heap:
                size, key = -heap[0][0], heap[0][1]
                if self.sizes.get(key) == size and key not in without:
                    largest = max(largest, size)
                    break
                if self.sizes.get(key) == size:
                    passed.append(heap[0])
                heapq.heappop(heap)
            for entry in passed:
                heapq.heappush(heap, entry)
        return largest

    def _record(self, key: str, size: int) -> None:
        before = self.sizes.pop(key, 0)
        self.total_bytes += size - before
        if size:
            self.sizes[key] = size
        if size and size != before:
            heapq.heappush(self._largest.setdefault(key.rpartition("/c.")[0], []), (-size, key))

    def _admit(self, key: str, data: bytes) -> None:
        if self.total_bytes + len(data) > self.max_bytes:
            raise BudgetError(
                f"{self.location}/{key} needs {len(data):,} bytes beside {self.total_bytes:,}, "
                f"the budget is {self.max_bytes:,}; nothing was put"
            )
