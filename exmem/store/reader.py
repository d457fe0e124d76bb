"""Reading exemplars: map the shards, decode straight into the rows of the batch, in a thread pool."""

import collections
import contextlib
import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import CodecError, CorruptExemplarError, StaleSnapshotError, UnknownSlotError
from exmem.store.catalog import Catalog, live_slots
from exmem.store.chunks import ABSENT, CRC_BYTES, decode_rows, index_bytes, strip_crc
from exmem.store.layout import CATALOG_KEY, Layout, RowArray, ShardedArray
from exmem.store.objects import Objects
from exmem.store.threads import Threads
from exmem.tokens import PaddedTokens, TokenBatch

__all__ = ["Reader"]

_MAX_SHARDS = 512  # open mappings
_MAX_CACHED_BYTES = 64 * 2**20  # shards held in RAM (remote stores) and decoded chunks of row arrays

_Shard = tuple["bytes | mmap.mmap", NDArray[np.uint64]]


class _Place(NamedTuple):
    """Where the payload of an exemplar lies, its checksum included."""

    slot: int
    key: str
    view: bytes | mmap.mmap
    start: int
    stop: int


class Reader:
    """Reads exemplars of one committed state.

    Parameters
    ----------
    objects : Objects
        Where the store lies.
    layout : Layout
        Its layout.
    threads : Threads
        Threads that decode.
    """

    def __init__(self, objects: Objects, layout: Layout, *, threads: Threads) -> None:
        self._objects = objects
        self._layout = layout
        self._threads = threads
        self._shards: collections.OrderedDict[str, _Shard] = collections.OrderedDict()
        self._chunks: collections.OrderedDict[str, NDArray[Any]] = collections.OrderedDict()
        self._live: dict[str, frozenset[int]] = {}  # chunk read after the snapshot -> slots it is right for
        self._snapshot: bytes | None = None

    def forget(self, key: str) -> None:
        """Drop what is cached of an object that was put or deleted."""
        self._shards.pop(key, None)
        self._chunks.pop(key, None)
        self._live.pop(key, None)

    def show(self, document: bytes | None) -> None:
        """Read for another snapshot.

        Parameters
        ----------
        document : bytes or None
            Metadata of the catalog that the snapshot was read with; None where this process is the writer.
        """
        self.clear()
        self._snapshot = document

    def clear(self) -> None:
        """Drop everything cached."""
        self._shards.clear()
        self._chunks.clear()
        self._live.clear()

    def close(self) -> None:
        """Stop the threads and drop everything cached."""
        self.clear()
        self._threads.close()

    def read(self, catalog: Catalog, slots: ArrayLike) -> TokenBatch:
        """Read exemplars into one padded batch, in the order asked.

        Parameters
        ----------
        catalog : Catalog
            The committed state to read.
        slots : array-like, shape (B,), integer
            Slots; one may occur several times.

        Returns
        -------
        TokenBatch
            The exemplars.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar, or one that is not committed.
        CorruptExemplarError
            If stored bytes are damaged.
        StaleSnapshotError
            If the writer has reclaimed what this state refers to.
        """
        rows, wanted = catalog.rows(slots), np.asarray(slots, np.int64).reshape(-1)
        staged = wanted[wanted >= catalog.num_slots].tolist()
        if staged:
            raise UnknownSlotError(f"slots {staged[:8]} are staged, not committed; call commit() before reading them")
        column = {name: rows[:, at] for at, name in enumerate(catalog.columns)}
        tokens = {
            name: self._read_modality(name, wanted, column[f"{name}.tokens"], catalog.shard_slots)
            for name in self._layout.schema.modalities
        }
        return TokenBatch(
            tokens,
            column["label"].copy(),
            column["priority"].copy().view(np.float64),
            {name: self._rows(array, wanted) for name, array in self._layout.extras.items()},
        )

    def payload(self, array: ShardedArray, slot: int, shard_slots: int) -> bytes:
        """Return one checked payload as it was encoded.

        Parameters
        ----------
        array : ShardedArray
            Values of a modality.
        slot : int
            The exemplar.
        shard_slots : int
            Slots of a shard.

        Returns
        -------
        bytes
            The payload.

        Raises
        ------
        CorruptExemplarError
            If it is damaged.
        StaleSnapshotError
            If it is not there any more.
        """
        return bytes(self._take(self._locate(array, slot, shard_slots)))

    def chunk(self, array: RowArray, chunk: int, *, required: bool = False) -> NDArray[Any]:
        """Return one decoded chunk of a row array (not to be changed); zeros where there is none.

        Parameters
        ----------
        array : RowArray
            The array.
        chunk : int
            Number of the chunk.
        required : bool
            Whether it must be there.

        Returns
        -------
        ndarray, shape (rows, *shape)
            The rows.

        Raises
        ------
        CorruptExemplarError
            If the chunk is damaged.
        StaleSnapshotError
            If it is required and not there.
        """
        key = array.key(chunk)
        if key not in self._chunks:
            data = self._objects.get(key)
            if data is None:
                if required:
                    raise self._stale(chunk * array.chunk_rows, key)
                return np.zeros((array.chunk_rows, *array.shape), array.dtype)
            self._keep_chunk(array, chunk, data)
        self._chunks.move_to_end(key)
        return self._chunks[key]

    def _keep_chunk(self, array: RowArray, chunk: int, data: bytes) -> None:
        key, first = array.key(chunk), chunk * array.chunk_rows
        try:
            rows = decode_rows(data, (array.chunk_rows, *array.shape), array.dtype)
        except CodecError as error:
            raise CorruptExemplarError(
                f"{self._objects.location}: exemplars {first}..{first + array.chunk_rows - 1} are damaged in {key} "
                f"({error})"
            ) from error
        self._chunks[key] = rows
        while len(self._chunks) > max(1, _MAX_CACHED_BYTES // rows.nbytes):
            dropped, _ = self._chunks.popitem(last=False)
            self._live.pop(dropped, None)

    def _fetch_chunks(
        self, array: RowArray, chunks: Sequence[int]
    ) -> dict[int, tuple[NDArray[Any], frozenset[int] | None]]:
        """Return chunks of a row array that must be there, and the slots they are right for (None: all).

        Those that are not cached are fetched at once.

        If something was committed since the snapshot, it is noted for which slots a fetched chunk is right. An eviction
        takes slots out of the catalog before it clears their rows: what is in the catalog after a chunk was read was
        not yet cleared when it was read.
        """
        absent = [chunk for chunk in chunks if array.key(chunk) not in self._chunks]
        cached = {chunk: array.key(chunk) for chunk in chunks if chunk not in absent}
        found = {chunk: (self._chunks[key], self._live.get(key)) for chunk, key in cached.items()}
        fetched = self._objects.get_many([array.key(chunk) for chunk in absent])
        outdated = bool(absent) and self._snapshot is not None and self._objects.get(CATALOG_KEY) != self._snapshot
        for chunk, data in zip(absent, fetched, strict=True):
            key, first = array.key(chunk), chunk * array.chunk_rows
            if data is None:
                raise self._stale(first, key)
            self._keep_chunk(array, chunk, data)
            if outdated:
                columns = len(self._layout.columns)
                self._live[key] = live_slots(self._objects, columns, first, first + array.chunk_rows)
            found[chunk] = self._chunks[key], self._live.get(key)
        return found

    def _read_modality(
        self, name: str, slots: NDArray[np.int64], counts: NDArray[np.int64], shard_slots: int
    ) -> PaddedTokens:
        spec = self._layout.schema.modalities[name]
        longest = int(counts.max(initial=0))
        keep = np.arange(longest) < counts[:, None]
        positions = np.where(keep, np.arange(longest), 0)
        partly = np.flatnonzero((counts > 0) & (counts < spec.positions))  # of all others the positions are known
        if len(partly):
            bits = self._rows(self._layout.keep[name], slots[partly])
            flags = np.unpackbits(bits, axis=1, count=spec.positions, bitorder="little").view(np.bool_)
            for at in np.flatnonzero(flags.sum(axis=1) != counts[partly])[:1]:
                raise self._stale(int(slots[partly[at]]), self._layout.keep[name].path)
            places = np.zeros((len(partly), longest), np.int64)
            places[keep[partly]] = np.nonzero(flags)[1]
            positions[partly] = places
        if name in self._layout.packed:
            packed, there = self._layout.packed[name], counts > 0
            values = np.zeros((len(slots), *packed.shape), packed.dtype)
            values[there] = self._rows(packed, slots[there])
            values = values[:, :longest]
        else:
            # What no payload fills is set to 0, so that padding is the same every time.
            whole = len(counts) > 0 and counts.min() == longest
            values = (np.empty if whole else np.zeros)((len(slots), longest, *spec.shape), str(spec.dtype))
            self._decode(self._layout.sharded[name], slots, counts, values, shard_slots)
        return PaddedTokens(np.ascontiguousarray(values), positions, keep)

    def _decode(
        self,
        array: ShardedArray,
        slots: NDArray[np.int64],
        counts: NDArray[np.int64],
        values: NDArray[Any],
        shard_slots: int,
    ) -> None:
        # Found in this thread, so that the threads below share no cache and need no lock.
        wanted = np.unique(slots[counts > 0] // max(shard_slots, 1)).tolist()
        absent = [key for key in map(array.key, wanted) if key not in self._shards]
        if len(absent) > 1:
            for key, view in zip(absent, self._objects.views(absent), strict=True):
                if view is not None:  # if it is missing, or its index damaged, the exemplar says so below
                    with contextlib.suppress(CorruptExemplarError):
                        self._hold(key, view, shard_slots, slot=-1)
        places = [
            self._locate(array, slot, shard_slots) if count else None
            for slot, count in zip(slots.tolist(), counts.tolist(), strict=True)
        ]

        def decode(part: Sequence[int]) -> None:
            for at in part:
                place = places[at]
                if place is None:
                    continue
                payload = self._take(place)
                try:
                    array.codec.decode_into(payload, values[at, : counts[at]])
                except CodecError as error:
                    raise self._corrupt(place.slot, place.key, str(error)) from error

        if array.codec.worth_threads:
            self._threads.run(decode, len(slots))
        else:
            decode(range(len(slots)))

    def _locate(self, array: ShardedArray, slot: int, shard_slots: int) -> "_Place":
        key = array.key(slot // shard_slots)
        view, index = self._shard(key, shard_slots, slot)
        start, length = (int(value) for value in index[slot % shard_slots])
        if start == ABSENT:
            raise self._stale(slot, key)
        if length < CRC_BYTES or start + length > len(view):
            raise self._corrupt(slot, key, "its index entry points outside the shard")
        return _Place(slot, key, view, start, start + length)

    def _take(self, place: "_Place") -> bytes | NDArray[np.uint8]:
        try:
            return strip_crc(np.frombuffer(place.view, np.uint8, place.stop - place.start, place.start))
        except CodecError as error:
            raise self._corrupt(place.slot, place.key, str(error)) from error

    def _rows(self, array: RowArray, slots: NDArray[np.int64]) -> NDArray[Any]:
        out = np.zeros((len(slots), *array.shape), array.dtype)
        chunks, places = np.divmod(slots, array.chunk_rows)
        found = self._fetch_chunks(array, np.unique(chunks).tolist())
        for chunk, (rows, live) in found.items():
            at = chunks == chunk
            out[at] = rows[places[at]]
            reclaimed = [] if live is None else [slot for slot in slots[at].tolist() if slot not in live]
            if reclaimed:
                raise self._stale(reclaimed[0], array.key(chunk))
        return out

    def _shard(self, key: str, shard_slots: int, slot: int) -> _Shard:
        if key in self._shards:
            self._shards.move_to_end(key)
            return self._shards[key]
        view = self._objects.view(key)
        if view is None:
            raise self._stale(slot, key)
        return self._hold(key, view, shard_slots, slot=slot)

    def _hold(self, key: str, view: bytes | mmap.mmap, shard_slots: int, *, slot: int) -> _Shard:
        size = index_bytes(shard_slots)
        try:
            index = np.frombuffer(strip_crc(view[-size:] if len(view) >= size else b""), "<u8").reshape(shard_slots, 2)
        except CodecError as error:
            raise self._corrupt(slot, key, f"the index of the shard: {error}") from error
        self._shards[key] = found = view, index
        held = sum(len(view) for view, _ in self._shards.values() if isinstance(view, bytes))
        while len(self._shards) > _MAX_SHARDS or (held > _MAX_CACHED_BYTES and len(self._shards) > 1):
            _, (dropped, _) = self._shards.popitem(last=False)
            held -= len(dropped) if isinstance(dropped, bytes) else 0
        return found

    def _stale(self, slot: int, key: str) -> StaleSnapshotError:
        return StaleSnapshotError(
            f"{self._objects.location}: exemplar {slot} is no longer in {key}: the writer has evicted it since this "
            "snapshot was taken; call refresh()"
        )

    def _corrupt(self, slot: int, key: str, why: str) -> CorruptExemplarError:
        return CorruptExemplarError(f"{self._objects.location}: exemplar {slot} is damaged in {key} ({why})")
