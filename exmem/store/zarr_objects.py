"""Objects in any Zarr store: memory, fsspec, obstore, icechunk."""

import asyncio
import functools
import mmap
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from zarr.abc.store import Store as ZarrStore
from zarr.core.buffer import default_buffer_prototype

from exmem.errors import ReadOnlyError, StoreIOError

__all__ = ["ZarrObjects", "zarr_objects"]

T = TypeVar("T")

_AT_ONCE = 32  # requests


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="exmem-io", daemon=True).start()
    return loop


class ZarrObjects:
    """The objects of a Zarr store.

    A put is as atomic and as durable as the store makes it. The lock is looked for first and put then, so two writers
    that start in the same instant are not told apart. The budget holds for the objects that the store lists: versions
    or snapshots that it keeps besides (S3 versioning, icechunk before garbage collection) are not counted.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    """

    def __init__(self, store: ZarrStore) -> None:
        self._store = store
        self._prototype = default_buffer_prototype()
        self.location = str(store)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object."""
        return dict(sorted(self._run(self._sizes()).items()))

    def keys(self, folder: str) -> list[str]:
        """Return the keys of the objects directly in a folder, sorted."""
        return sorted(key for key in self._run(self._listed(folder)) if "/" not in key.removeprefix(f"{folder}/"))

    def get(self, key: str) -> bytes | None:
        """Return an object, None when it is missing."""
        found = self._run(self._store.get(key, self._prototype))
        return None if found is None else found.to_bytes()

    def view(self, key: str) -> bytes | None:
        """Return a whole object, None when it is missing."""
        return self.get(key)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return several objects, fetched at once."""
        return self._run(self._fetched(keys))

    def views(self, keys: Sequence[str]) -> list[bytes | mmap.mmap | None]:
        """Return several whole objects, fetched at once."""
        return [*self.get_many(keys)]

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object.

        Parameters
        ----------
        key : str
            Name of the object.
        data : bytes
            Its content.

        Raises
        ------
        ReadOnlyError
            If the store cannot be written.
        """
        if self._store.read_only:
            raise ReadOnlyError(f"{self.location} is a read-only Zarr store; pass one that can be written")
        self._run(self._store.set(key, self._prototype.buffer.from_bytes(data)))

    def hold(self, key: str, data: bytes, *, take: bool) -> tuple[bool, bytes | None]:
        """Put a lock object, if it is not there or is to be taken."""
        before = self.get(key)
        if before is None or take:
            self.put(key, data)
        return before is None or take, before

    def let_go(self, key: str) -> None:
        """Do nothing: the object was the lock."""

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        self._run(self._store.delete(key))

    def flush(self) -> None:
        """Do nothing: each put is as durable as the store makes it."""

    async def _fetched(self, keys: Sequence[str]) -> list[bytes | None]:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def fetch(key: str) -> bytes | None:
            async with limit:
                found = await self._store.get(key, self._prototype)
                return None if found is None else found.to_bytes()

        return [*await asyncio.gather(*map(fetch, keys))]

    async def _listed(self, folder: str) -> list[str]:
        return [key async for key in self._store.list_prefix(f"{folder}/")]

    async def _sizes(self) -> dict[str, int]:
        keys = [key async for key in self._store.list()]
        limit = asyncio.Semaphore(_AT_ONCE)

        async def size(key: str) -> int:
            async with limit:
                return await self._store.getsize(key)

        return dict(zip(keys, await asyncio.gather(*map(size, keys)), strict=True))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(work, _loop()).result()
        except OSError as error:
            raise StoreIOError(f"{self.location}: {error}; the store holds its last committed state") from error


class SlashedObjects(ZarrObjects):
    """The objects of a store that takes chunk keys with slashes only (icechunk).

    `c.0.1` is put as `c/0/1`, and the metadata says so to other readers.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    """

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object."""
        return {_dotted(key): size for key, size in super().sizes().items()}

    def keys(self, folder: str) -> list[str]:
        """Return the keys of the objects directly in a folder, sorted."""
        found = (_dotted(key) for key in self._run(self._listed(folder)))
        return sorted(key for key in found if "/" not in key.removeprefix(f"{folder}/"))

    def get(self, key: str) -> bytes | None:
        """Return an object, None when it is missing."""
        data = super().get(_slashed(key))
        return data if data is None or not key.endswith("zarr.json") else data.replace(_SLASH, _DOT)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return several chunks, fetched at once."""
        return super().get_many([_slashed(key) for key in keys])

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object; see `ZarrObjects.put`."""
        super().put(_slashed(key), data.replace(_DOT, _SLASH) if key.endswith("zarr.json") else data)

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        super().delete(_slashed(key))


_DOT, _SLASH = b'{"separator":"."}', b'{"separator":"/"}'


def _slashed(key: str) -> str:
    folder, mark, chunk = key.rpartition("/c.")
    return f"{folder}/c/{chunk.replace('.', '/')}" if mark else key


def _dotted(key: str) -> str:
    folder, mark, chunk = key.partition("/c/")
    return f"{folder}/c.{chunk.replace('/', '.')}" if mark else key


def zarr_objects(store: ZarrStore) -> ZarrObjects:
    """Return the objects of a Zarr store.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.

    Returns
    -------
    ZarrObjects
        Its objects.
    """
    return SlashedObjects(store) if type(store).__module__.startswith("icechunk") else ZarrObjects(store)
