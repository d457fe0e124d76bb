"""Objects as files below a folder."""
# ruff: noqa: PTH102, PTH105, PTH106, PTH108 -- a put is part of every commit, and pathlib takes longer than the system

import contextlib
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exmem.errors import ExmemError, FormatError, ReadOnlyError, StoreExistsError
from exmem.store.objects.contract import TEMPORARY, View
from exmem.store.objects.file_lock import FileLock
from exmem.store.objects.files import (
    failure,
    is_link,
    new_temporary,
    open_regular,
    read_all,
    remove,
    synchronise,
    write_new,
)
from exmem.store.objects.lock import LOCK_KEY

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["LocalObjects"]


class LocalObjects:
    """Files below a folder, whose lock the operating system gives back when the writer dies.

    Neither the files nor the folders below the root may be symbolic links; a folder is looked at once. The root is
    absolute, and made when something is put. `durable`: files are synchronised with the disk as they are put, folders
    at `flush`. `read_only`: the lock is refused.
    """

    def __init__(self, root: Path, *, durable: bool = True, read_only: bool = False) -> None:
        self.location: str = str(root)
        self.place: str | ZarrStore = self.location
        self._durable = durable
        self._read_only = read_only
        self._lock = FileLock(f"{self.location}/{LOCK_KEY}", self.location, durable=durable)
        self._checked = {""}  # folders that are no links
        self._unsynchronised: set[str] = set()
        self._thinned: set[str] = set()  # folders from which something was deleted

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file; FormatError when a folder is a symbolic link."""
        sizes: dict[str, int] = {}
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(f"{self.location}/{folder}") as entries:
                    for entry in entries:
                        key = f"{folder}{entry.name}"
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(f"{key}/")
                        elif entry.is_symlink() and entry.is_dir():
                            raise is_link(entry.path)
                        else:
                            with contextlib.suppress(FileNotFoundError):  # replaced while a reader looks
                                sizes[key] = entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            except NotADirectoryError as error:
                raise StoreExistsError(f"{self.location} is a file; expected a folder, choose another place") from error
            except OSError as error:
                raise failure(f"{self.location}/{folder}", "listed", error) from error
        return dict(sorted(sizes.items()))

    def get(self, key: str, *, limit: int) -> bytes | None:
        """Return a file's content, None when it is missing; FormatError when it is longer or no regular file."""
        path = f"{self.location}/{key}"
        try:
            descriptor, status = self._open(key)
            try:
                if status.st_size > limit:
                    raise FormatError(
                        f"{path} has {status.st_size:,} bytes, at most {limit:,} were expected; it is damaged or no "
                        "part of this store"
                    )
                return read_all(descriptor, status.st_size)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise failure(path, "read", error) from error

    def get_many(self, keys: Sequence[str], *, limit: int) -> list[bytes | None]:
        """Return the content of several files, None for those that are missing."""
        return [self.get(key, limit=limit) for key in keys]

    def view(self, key: str) -> View | None:
        """Map a file, None when it is missing; the mapping keeps a descriptor, a later put leaves it as it is."""
        try:
            descriptor, status = self._open(key)
            try:
                size = status.st_size
                data = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b""  # nothing has no map
                return View(data, _identity(status))
            except ValueError as error:
                raise OSError(f"it has become shorter: {error}") from error
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise failure(f"{self.location}/{key}", "read", error) from error

    def views(self, keys: Sequence[str]) -> list[View | None]:
        """Map several files, None for those that are missing."""
        return [self.view(key) for key in keys]

    def identity(self, key: str) -> object | None:
        """Return inode, time and size of a file, None when it is missing."""
        try:
            return _identity(os.lstat(f"{self.location}/{key}"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise failure(f"{self.location}/{key}", "read", error) from error

    def put(self, key: str, data: bytes) -> None:
        """Write a temporary file beside the target, synchronise it, rename it over the target."""
        folder = key.rpartition("/")[0]
        path, temporary = f"{self.location}/{key}", f"{self.location}/{folder}/{new_temporary()}"
        try:
            self._unsynchronised.add(folder)
            if folder not in self._checked:
                self._make_folders(folder)
            try:
                write_new(temporary, data, durable=self._durable)
            except FileNotFoundError:  # somebody removed the folder
                self._make_folders(folder)
                write_new(temporary, data, durable=self._durable)
            os.replace(temporary, path)
        except BaseException as error:  # an interrupt too leaves nothing behind
            remove(temporary)
            if isinstance(error, OSError) and not isinstance(error, ExmemError):
                raise failure(path, "written", error) from error
            raise

    def delete(self, key: str) -> None:
        """Delete a file; a missing one is no error."""
        folder = key.rpartition("/")[0]
        try:
            if folder not in self._checked:
                self._check_folders(folder)
            self._unsynchronised.add(folder)
            self._thinned.add(folder)
            os.unlink(f"{self.location}/{key}")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise failure(f"{self.location}/{key}", "deleted", error) from error

    def flush(self) -> None:
        """Remove folders that became empty, synchronise the others with the disk."""
        while self._thinned:
            folder = max(self._thinned, key=len)
            if folder:
                parent = folder.rpartition("/")[0]
                with contextlib.suppress(OSError):  # nearly always: it is not empty
                    os.rmdir(f"{self.location}/{folder}")
                    self._checked.discard(folder)
                    self._thinned.add(parent)
                    self._unsynchronised.add(parent)
            self._thinned.discard(folder)
        while self._unsynchronised:
            folder = min(self._unsynchronised)
            try:
                if self._durable:
                    synchronise(f"{self.location}/{folder}")
            except FileNotFoundError:
                pass
            except OSError as error:
                raise failure(f"{self.location}/{folder}", "synchronised", error) from error
            self._unsynchronised.discard(folder)

    def clear_temporary(self) -> None:
        """Delete the temporary files of interrupted puts."""
        for key in self.sizes():
            if key.rpartition("/")[2].startswith(TEMPORARY):
                self.delete(key)

    def acquire(self, *, take: bool) -> bool:
        """Hold the lock file; True when the last holder did not give it back. `take` is for what another host left."""
        if self._read_only:
            raise ReadOnlyError(f"{self.location} was given as a read-only store; pass one that can be written")
        folder = LOCK_KEY.rpartition("/")[0]
        with self._locking("locked"):
            self._make_folders(folder)
            self._unsynchronised.add(folder)
            return self._lock.acquire(take=take)

    def check_lock(self) -> None:
        """Raise LockedError when the lock is not held, or its file was removed or replaced."""
        with self._locking("looked at"):
            self._lock.check()

    def commit(self, key: str, data: bytes) -> None:
        """Put the commit point after everything that it refers to is durable."""
        self.check_lock()
        self.flush()
        self.put(key, data)
        self.flush()

    def release(self, *, clean: bool = True) -> None:
        """Give the lock back; nothing in a forked child, which never holds it."""
        with self._locking("given back"):
            self._lock.release(clean=clean)

    @contextlib.contextmanager
    def _locking(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, ExmemError):
                raise
            raise failure(f"{self.location}/{LOCK_KEY}", done, error) from error

    def _open(self, key: str) -> tuple[int, os.stat_result]:
        folder = key.rpartition("/")[0]
        if folder not in self._checked:
            self._check_folders(folder)
        return open_regular(f"{self.location}/{key}")

    def _check_folders(self, folder: str) -> None:
        path = self.location
        for name in folder.split("/") if folder else ():
            path = f"{path}/{name}"
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise is_link(path)
        self._checked.add(folder)

    def _make_folders(self, folder: str) -> None:
        if not folder:
            Path(self.location).mkdir(parents=True, exist_ok=True)
            return
        try:
            self._check_folders(folder)
        except FileNotFoundError:
            parent = folder.rpartition("/")[0]
            self._make_folders(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self.location}/{folder}")
            self._unsynchronised.add(parent)
            self._check_folders(folder)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size
