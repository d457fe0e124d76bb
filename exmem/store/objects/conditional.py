"""Objects in an obstore store (S3, GCS, Azure, memory), whose puts can depend on what they replace."""

from typing import TYPE_CHECKING, Literal, TypeAlias

import obstore
from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError
from typing_extensions import override
from zarr.storage import ObjectStore

from exmem.errors import LockedError
from exmem.store.objects.lock import LOCK_KEY
from exmem.store.objects.remote import RemoteObjects

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion
    from obstore.store import ObjectStore as ObstoreStore

    Condition: TypeAlias = UpdateVersion | Literal["create"]  # what a put depends on

__all__ = ["ConditionalObjects"]


class ConditionalObjects(RemoteObjects):
    """The objects of an obstore store (`zarr.storage.ObjectStore`).

    A commit replaces only the version of the commit point that this writer saw last, so that one whose lock is taken
    cannot commit even if it looked at the lock an instant too early.
    """

    def __init__(self, store: "ObjectStore[ObstoreStore]") -> None:
        super().__init__(store)
        self._objects = store.store
        self._versions: dict[str, Condition] = {}  # of the metadata that was fetched or put last

    @override
    def commit(self, key: str, data: bytes) -> None:
        """Put the commit point if the lock is still held and nobody else put it."""
        self._refuse_if_read_only()
        self.check_lock()
        # A request that was sent twice finds its own object.
        if not self._run(self._put_if_unchanged(key, data)) and self._run(self._fetch(key, None)) != data:
            raise LockedError(
                f"{self.location}/{key} was changed by another writer; nothing was committed, open it again"
            )

    async def _put_if_unchanged(self, key: str, data: bytes) -> bool:
        """Put an object in the place of the version seen last; False if another is there."""
        version = self._versions.get(key)
        if version is None:
            await self._send(key, data)
            return True
        try:
            result = await obstore.put_async(self._objects, key, data, mode=version, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except (NotSupportedError, NotImplementedError):  # a store that knows no such condition
            await self._send(key, data)
            return True
        self._see(key, result)
        return True

    @override
    async def _fetch(self, key: str, limit: int | None) -> bytes | None:
        try:
            response = await obstore.get_async(self._objects, key)
        except FileNotFoundError:
            self._see(key, None)
            return None
        if limit is not None and response.meta["size"] > limit:
            raise self._too_large(key, limit)
        data = bytes(await response.bytes_async())
        self._see(key, response.meta)
        return data

    @override
    async def _send(self, key: str, data: bytes) -> None:
        self._see(key, await obstore.put_async(self._objects, key, data))

    @override
    async def _create(self, key: str, data: bytes) -> None:
        try:
            await obstore.put_async(self._objects, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            pass
        except (NotSupportedError, NotImplementedError):
            if await self._fetch(key, None) is None:
                await self._send(key, data)

    @override
    async def _replace_lock(self, data: bytes) -> None:
        await self._put_if_unchanged(LOCK_KEY, data)

    @override
    async def _remove(self, key: str) -> None:
        await super()._remove(key)
        self._see(key, None)

    @override
    async def _keys(self) -> list[str]:
        return [*await self._sizes()]

    @override
    async def _sizes(self) -> dict[str, int]:
        sizes = {}
        async for metas in obstore.list(self._objects):
            sizes.update({meta["path"]: meta["size"] for meta in metas})
        return sizes

    def _see(self, key: str, meta: "ObjectMeta | PutResult | None") -> None:
        if key.endswith("zarr.json"):  # the only objects that are ever replaced on a condition
            self._versions[key] = "create" if meta is None else _version(meta)


def _version(meta: "ObjectMeta | PutResult") -> "UpdateVersion":
    version: UpdateVersion = {}  # obstore says None where a store has none, and refuses it
    if meta["e_tag"] is not None:
        version["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        version["version"] = meta["version"]
    return version
