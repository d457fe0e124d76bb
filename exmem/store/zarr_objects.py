"""Objects in any Zarr store: memory, fsspec, obstore, icechunk."""

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from zarr.abc.store import Store as ZarrStore
from zarr.core.buffer import default_buffer_prototype

from exmem.errors import ReadOnlyError, StoreIOError

__all__ = ["ZarrObjects"]

T = TypeVar("T")

_AT_ONCE = 32  # requests


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="exmem-io", daemon=True).start()
    return loop


class ZarrObjects:
    """The objects of a Zarr store.

    A put is as atomic and as durable as the store makes it; `put_new` asks first and puts then, so two writers that
    start in the same instant are told apart only by stores with conditional puts.

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

    def put_new(self, key: str, data: bytes) -> bool:
        """Create an object; return False, and change nothing, when it is already there."""
        if self.get(key) is not None:
            return False
        self.put(key, data)
        return True

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        self._run(self._store.delete(key))

    def flush(self) -> None:
        """Do nothing: each put is as durable as the store makes it."""

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
