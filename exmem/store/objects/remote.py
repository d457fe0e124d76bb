"""Objects in any Zarr store: memory, fsspec, icechunk; those of obstore are in `conditional`."""

import asyncio
import contextlib
import functools
import inspect
import os
import secrets
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from typing_extensions import override
from zarr.abc.store import RangeByteRequest
from zarr.abc.store import Store as ZarrStore
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

from exmem.errors import ExmemError, FormatError, LockedError, ReadOnlyError, SchemaError, StoreIOError
from exmem.store.objects.contract import TEMPORARY, Objects, View
from exmem.store.objects.local import LocalObjects
from exmem.store.objects.lock import LOCK_BYTES, LOCK_KEY, is_free, lock_document, parse_holder, this_process, who
from exmem.tokens.checks import shown

__all__ = ["RemoteObjects", "objects_of"]

T = TypeVar("T")

_AT_ONCE = 32  # requests
_TRIES = 10
_COPY = "copy"


class RemoteObjects:
    """The objects of a Zarr store; a put is as atomic and as durable as the store makes it.

    The lock is an object that is created if it is not there: atomically where the store can (memory, obstore, fsspec
    file systems with exclusive creation); elsewhere two writers that start in the same instant are told apart only at
    their next commit. The budget holds for what the store lists: versions or snapshots that it keeps besides (S3
    versioning, icechunk before garbage collection) are not counted.
    """

    _ranges = True  # whether more bytes may be asked for than there are

    def __init__(self, store: ZarrStore) -> None:
        self.location: str = str(store)
        self.place: str | ZarrStore = store
        self._store = store
        self._prototype = default_buffer_prototype()
        self._lock: bytes | None = None  # the lock object that was put
        self._locked_by = 0  # pid

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object."""
        return dict(sorted(self._run(self._sizes()).items()))

    def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object, None when it is missing; FormatError when it is longer."""
        return self._run(self._fetch(key, limit))

    def get_many(self, keys: Sequence[str], *, limit: int) -> list[bytes | None]:
        """Return several objects, fetched at once."""
        return self._run(_at_once(functools.partial(self._fetch, limit=limit), keys))

    def view(self, key: str) -> View | None:
        """Return a copy of a whole object, None when it is missing."""
        return self.views([key])[0]

    def views(self, keys: Sequence[str]) -> list[View | None]:
        """Return copies of several whole objects, fetched at once."""
        fetched = self._run(_at_once(functools.partial(self._fetch, limit=None), keys))
        return [None if data is None else View(data, _COPY) for data in fetched]

    def identity(self, key: str) -> object | None:
        """Return always the same: nobody changes a copy."""
        return _COPY

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object; ReadOnlyError when the store cannot be written."""
        self._refuse_if_read_only()
        self._run(self._send(key, data))

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        self._refuse_if_read_only()
        self._run(self._remove(key))

    def flush(self) -> None:
        """Do nothing: each put is as durable as the store makes it."""

    def clear_temporary(self) -> None:
        """Delete temporary files that came with a folder which was copied into the store."""
        for key in self._run(self._keys()):
            if key.rpartition("/")[2].startswith(TEMPORARY):
                self.delete(key)

    def acquire(self, *, take: bool) -> bool:
        """Take the lock by creating its object; True when that of a dead writer was replaced."""
        self._refuse_if_read_only()
        mine = lock_document(this_process(secrets.token_hex(8)))
        try:
            unclean = self._put_lock(mine, take=take)
        except BaseException:
            with contextlib.suppress(StoreIOError):  # an interrupt after the put would leave a lock that nobody knows
                if self._lock_content() == mine:
                    self.delete(LOCK_KEY)
            raise
        self._lock, self._locked_by = mine, os.getpid()
        return unclean

    def check_lock(self) -> None:
        """Raise LockedError when the lock is not held, or was taken."""
        if self._lock is None or self._locked_by != os.getpid():
            raise LockedError(f"{self.location} is not locked by this writer; open it again")
        content = self._lock_content()
        if content != self._lock:
            by = "removed" if content is None else f"taken by {who(parse_holder(content))}"
            raise LockedError(f"the lock of {self.location} was {by}; nothing was committed, open it again")

    def commit(self, key: str, data: bytes) -> None:
        """Put the commit point if the lock is still held."""
        self.check_lock()
        self.put(key, data)

    def release(self, *, clean: bool = True) -> None:
        """Delete the lock object if it is still this writer's; nothing in a forked child."""
        content, self._lock = self._lock, None
        if content is None or self._locked_by != os.getpid() or self._lock_content() != content:
            return
        if clean:
            self.delete(LOCK_KEY)
        elif (holder := parse_holder(content)) is not None:
            self.put(LOCK_KEY, lock_document(holder._replace(pid=0)))  # no process: a writer that died

    def _put_lock(self, mine: bytes, *, take: bool) -> bool:
        for _ in range(_TRIES):
            before = self._lock_content()
            if before is None:
                self._run(self._create(LOCK_KEY, mine))
            elif take or self._is_left(before):
                self._run(self._replace_lock(mine))
            else:
                raise self._refusal(before)
            if self._lock_content() == mine:
                return before is not None and not is_free(before)
        raise self._refusal(self._lock_content())

    def _is_left(self, content: bytes) -> bool:
        holder = parse_holder(content)
        return is_free(content) or (holder is not None and holder.lives is False)

    def _refusal(self, content: bytes | None) -> LockedError:
        return LockedError(
            f"{self.location} is open for writing by {who(parse_holder(content))}; close it there, open with mode 'r', "
            "or, if that process is surely gone, open with take_lock=True"
        )

    def _lock_content(self) -> bytes | None:
        return self._run(self._fetch(LOCK_KEY, 16 * LOCK_BYTES))

    def _refuse_if_read_only(self) -> None:
        if self._store.read_only:
            raise ReadOnlyError(f"{self.location} is a read-only Zarr store; pass one that can be written")
        if not self._store.supports_deletes:
            raise ReadOnlyError(
                f"{self.location} is a {type(self._store).__name__}, which cannot delete objects; open it with mode "
                "'r', or copy it into a folder to change it"
            )

    async def _fetch(self, key: str, limit: int | None) -> bytes | None:
        # One byte more than the limit tells that an object is too large, and no more is fetched.
        await self._opened()
        wanted = None if limit is None or not self._ranges else RangeByteRequest(0, limit + 1)
        buffer = await self._store.get(key, self._prototype, wanted)
        data = None if buffer is None else buffer.to_bytes()
        if data is not None and limit is not None and len(data) > limit:
            raise self._too_large(key, limit)
        return data

    def _too_large(self, key: str, limit: int) -> FormatError:
        return FormatError(
            f"{self.location}/{key} has more than {limit:,} bytes, which is the most that was expected; it is damaged "
            "or no part of this store"
        )

    async def _opened(self) -> None:
        # Alone among the stores of Zarr it does not open itself; opened for writing it would lose what it holds.
        if isinstance(self._store, ZipStore) and not self._store._is_open:
            if not self._store.read_only:
                self._refuse_if_read_only()
            await self._store._open()

    async def _send(self, key: str, data: bytes) -> None:
        await self._store.set(key, self._prototype.buffer.from_bytes(data))

    async def _create(self, key: str, data: bytes) -> None:
        """Put an object unless it is there."""
        await self._store.set_if_not_exists(key, self._prototype.buffer.from_bytes(data))

    async def _replace_lock(self, data: bytes) -> None:
        """Put the lock in the place of the one that was seen last."""
        await self._send(LOCK_KEY, data)

    async def _remove(self, key: str) -> None:
        await self._store.delete(key)

    async def _keys(self) -> list[str]:
        await self._opened()
        return [key async for key in self._store.list()]

    async def _sizes(self) -> dict[str, int]:
        keys = await self._keys()
        sizes = await _at_once(self._size, keys)
        return {key: size for key, size in zip(keys, sizes, strict=True) if size is not None}

    async def _size(self, key: str) -> int | None:
        try:
            return await self._store.getsize(key)
        except FileNotFoundError:
            return None  # deleted by the writer while a reader looks

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        begun, ended = threading.Event(), threading.Event()

        async def watched() -> T:
            begun.set()
            try:
                return await work
            finally:
                ended.set()

        loop = _loop()
        try:
            return asyncio.run_coroutine_threadsafe(watched(), loop).result()
        except ExmemError:
            raise
        except Exception as error:  # stores have errors of their own
            raise StoreIOError(f"{self.location}: {error}; the store holds its last committed state") from error
        except BaseException:
            # An interrupt of this thread: what the request does must not come after what is done next. When a request
            # that was made later has been answered, this one has begun, or never will.
            asyncio.run_coroutine_threadsafe(_nothing(), loop).result()
            if begun.is_set():
                ended.wait()
            raise


class _FsspecObjects(RemoteObjects):
    """The objects of an fsspec file system: created exclusively where it can."""

    def __init__(self, store: FsspecStore) -> None:
        super().__init__(store)
        self._fs, self._root = store.fs, store.path.rstrip("/")

    @override
    async def _create(self, key: str, data: bytes) -> None:
        # Others would take the mode as some option and replace the object.
        if "mode" not in inspect.signature(self._fs._pipe_file).parameters:
            await super()._create(key, data)
            return
        try:
            await self._fs._pipe_file(f"{self._root}/{key}", data, mode="create")
        except FileExistsError:
            return
        except (TypeError, ValueError, NotImplementedError):
            await super()._create(key, data)


class _SlashedObjects(RemoteObjects):
    """The objects of a store that takes chunk keys with slashes only (icechunk).

    `c.0.1` is put as `c/0/1`, and the metadata says so to other readers.
    """

    _ranges = False  # icechunk 1 panics

    @override
    async def _keys(self) -> list[str]:
        return [_dotted(key) for key in await super()._keys()]

    @override
    async def _size(self, key: str) -> int | None:
        return await super()._size(_slashed(key))

    @override
    async def _fetch(self, key: str, limit: int | None) -> bytes | None:
        if not await self._store.exists(_slashed(key)):  # icechunk fails for a chunk of an array that is not there
            return None
        data = await super()._fetch(_slashed(key), limit)
        return data.replace(_SLASH, _DOT) if data is not None and key.endswith("zarr.json") else data

    @override
    async def _send(self, key: str, data: bytes) -> None:
        await super()._send(_slashed(key), data.replace(_DOT, _SLASH) if key.endswith("zarr.json") else data)

    @override
    async def _remove(self, key: str) -> None:
        if await self._store.exists(_slashed(key)):
            await super()._remove(_slashed(key))


_DOT, _SLASH = b'{"separator":"."}', b'{"separator":"/"}'


def _slashed(key: str) -> str:
    folder, mark, chunk = key.rpartition("/c.")
    return f"{folder}/c/{chunk.replace('.', '/')}" if mark else key


def _dotted(key: str) -> str:
    folder, mark, chunk = key.partition("/c/")
    return f"{folder}/c.{chunk.replace('/', '.')}" if mark else key


def objects_of(store: object, *, durable: bool) -> Objects:
    """Return the objects of a Zarr store; SchemaError when it is none."""
    if isinstance(store, LocalStore):
        objects = LocalObjects(store.root.absolute(), durable=durable, read_only=store.read_only)
        objects.place = store if store.read_only else objects.place
        return objects
    if isinstance(store, ObjectStore):
        from exmem.store.objects.conditional import ConditionalObjects  # obstore is not installed everywhere

        return ConditionalObjects(store)
    if isinstance(store, FsspecStore):
        return _FsspecObjects(store)
    if isinstance(store, ZarrStore):
        return _SlashedObjects(store) if type(store).__module__.startswith("icechunk") else RemoteObjects(store)
    raise SchemaError(f"expected the path of a folder or a Zarr store as the place of a store, got {shown(store)}")


async def _at_once(work: Callable[[str], Coroutine[Any, Any, T]], keys: Sequence[str]) -> list[T]:
    """Return the results of the same request for several keys, in order."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def limited(key: str) -> T:
        async with limit:
            return await work(key)

    return [*await asyncio.gather(*map(limited, keys))]


def _loop() -> asyncio.AbstractEventLoop:
    """Return Zarr's own event loop: some stores work only in the loop in which they were used first."""
    loop = _loop_of(os.getpid())  # a forked child has a loop of its own
    if not loop.is_running():
        _loop_of.cache_clear()
        loop = _loop_of(os.getpid())
    return loop


@functools.cache
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    return sync(_running_loop())


async def _nothing() -> None:
    pass


async def _running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
