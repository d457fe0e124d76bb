"""Reading exemplars: map the shards, decode straight into the rows of the batch, in a thread pool."""

import collections
import dataclasses
import mmap
import resource
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from exmem.errors import CodecError, CorruptExemplarError, FormatError
from exmem.store.catalog import PENDING, Catalog, place_of, segment_of
from exmem.store.format.chunks import CRC_BYTES, decode_rows, index_bytes, most_row_bytes, parse_index
from exmem.store.format.layout import Field, Layout
from exmem.store.format.state import State
from exmem.store.objects import Objects
from exmem.store.segments import Rows, parse_catalog
from exmem.store.threads import Threads
from exmem.tokens import PaddedTokens, TokenBatch

__all__ = ["MovedError", "Reader"]

_MOST_MAPS = 512  # open mappings, each with a descriptor
_MOST_CACHED_BYTES = 64 * 2**20  # shards held in RAM (remote stores), and decoded records


class MovedError(Exception):
    """An object is not there, or holds fewer rows than it should: its exemplars were moved, evicted or damaged."""


@dataclasses.dataclass(eq=False)
class _Shard:
    """A mapped shard; rows below `rows` are right, those in `verified` had their checksum compared."""

    key: str
    data: bytes | mmap.mmap
    identity: object
    index: NDArray[np.int64]
    rows: int
    verified: NDArray[np.bool_]


class Reader:
    """Reads what the rows of a catalog refer to, and caches objects by name: names are write-once.

    Parameters
    ----------
    objects : Objects
        Where the store lies.
    layout : Layout
        Its layout.
    threads : Threads
        Threads that decode.
    verify : {"once", "always"}
        When a payload's checksum is compared: at its first read, and after its file changed; or each time.
    """

    def __init__(
        self, objects: Objects, layout: Layout, *, threads: Threads, verify: Literal["once", "always"] = "once"
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._threads = threads
        self._verify = verify
        self._shards: collections.OrderedDict[str, _Shard] = collections.OrderedDict()
        self._records: collections.OrderedDict[str, tuple[NDArray[np.uint8], int]] = collections.OrderedDict()
        self._cached_bytes = 0
        self._most_maps = max(8, min(_MOST_MAPS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self.fetched = False  # whether an object was fetched since this was set to False

    def forget(self, key: str) -> None:
        """Drop what is cached of an object that was put or deleted."""
        self._drop_shard(key)
        self._records.pop(key, None)

    def clear(self) -> None:
        """Drop everything cached."""
        self._shards.clear()
        self._records.clear()
        self._cached_bytes = 0

    def close(self) -> None:
        """Stop the threads and drop everything cached."""
        self.clear()
        self._threads.close()

    def read(self, catalog: Catalog, rows: NDArray[np.int64], state: State, pending: Rows) -> TokenBatch:
        """Read rows of a catalog into one padded batch; MovedError when an object does not hold what it should.

        `pending` are exemplars that are staged in RAM only.
        """
        slots, where = catalog.slots_at(rows), catalog.where_at(rows)
        counts, lengths = catalog.counts_at(rows), catalog.lengths_at(rows)
        places = {slot: index for index, slot in enumerate(pending.slots.tolist())} if len(pending) else {}
        waiting = [places[slot] for slot in slots[where == PENDING].tolist()]
        partly = (counts > 0) & (counts < self._layout.most_tokens)
        packed = [name in self._layout.packed for name in self._layout.schema.modalities]
        needed = partly.any(axis=1) | (counts[:, packed] > 0).any(axis=1) | bool(self._layout.extras)
        records = np.zeros((len(rows), self._layout.record_bytes), np.uint8)
        records[where == PENDING] = pending.records[waiting]
        self._take_records(records, where, needed & (where != PENDING), state)
        tokens = {}
        for number, name in enumerate(self._layout.schema.modalities):
            values, positions, keep = self._padded(name, counts[:, number], records)
            if name in self._layout.sharded:
                column = list(self._layout.sharded).index(name)
                pieces = [pending.pieces[name][index] for index in waiting]
                self._decode(name, where, counts[:, number], lengths[:, column], values, pieces, state)
            tokens[name] = PaddedTokens(values, positions, keep)
        extras = {name: _values(records, field) for name, field in self._layout.extras.items()}
        return TokenBatch(tokens, catalog.labels_at(rows), catalog.priorities_at(rows), extras, slots)

    def segment(
        self, era: int, segment: int, state: State, places: NDArray[np.int64] | None = None, *, rebuild: bool = False
    ) -> Rows:
        """Return rows of a segment as they are stored; with `rebuild`, damaged records are made again if they can."""
        layout, room = self._layout, state.eras[era].rows
        key = layout.catalog_key(era, segment)
        try:
            data = self._objects.get(key, limit=most_row_bytes(8 * len(layout.columns) * room))
            catalog = parse_catalog(data or b"", layout, room)
            chosen = np.arange(len(catalog)) if places is None else places
            if len(chosen) and int(chosen[-1]) >= len(catalog):
                raise CodecError("it has too few rows")
            catalog = catalog[chosen]
            records = np.zeros((len(catalog), layout.record_bytes), np.uint8)
            where = (era << 36 | segment) << 8 | chosen
            try:
                self._take_records(records, where, np.ones(len(catalog), np.bool_), state)
            except MovedError:
                if not rebuild:
                    raise
                records = self._rebuilt(catalog)
            pieces = {}
            for number, name in enumerate(layout.sharded, layout.first_length):
                pieces[name] = self._pieces(era, segment, state, name, chosen, catalog[:, number])
        except (CodecError, FormatError, MovedError) as error:
            raise CorruptExemplarError(f"{self._objects.location}: {key}: the segment is damaged ({error})") from error
        return Rows(layout, catalog, records, pieces)

    def _pieces(
        self,
        era: int,
        segment: int,
        state: State,
        name: str,
        places: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> list[bytes]:
        pieces, held = [b""] * len(places), np.flatnonzero(lengths).tolist()
        if held:
            key, room = self._layout.shard_key(era, segment, name), state.eras[era].rows
            shard = self._shard(key, room, self._known_rows(era, segment, state), int(places[held[-1]]))
            for row in held:
                start, length = shard.index[places[row]].tolist()
                if start < 0 or length != lengths[row] + CRC_BYTES:
                    raise CodecError(f"{name}: row {places[row]} has no payload of the size that the catalog says")
                pieces[row] = bytes(shard.data[start : start + length])
        return pieces

    def _rebuilt(self, catalog: NDArray[np.int64]) -> NDArray[np.uint8]:
        records = np.zeros((len(catalog), self._layout.record_bytes), np.uint8)
        for number, (name, spec) in enumerate(self._layout.schema.modalities.items(), self._layout.first_count):
            field, full = self._layout.keep[name], catalog[:, number] == spec.positions
            bits = np.packbits(np.ones(spec.positions, np.bool_), bitorder="little")
            records[full, field.start : field.start + field.num_bytes] = bits
        return records

    def _padded(
        self, name: str, counts: NDArray[np.int64], records: NDArray[np.uint8]
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.bool_]]:
        spec = self._layout.schema.modalities[name]
        longest = int(counts.max(initial=0))
        keep = np.arange(longest) < counts[:, None]
        positions = np.where(keep, np.arange(longest), 0)
        partly = np.flatnonzero((counts > 0) & (counts < spec.positions))  # of all others the positions are known
        if len(partly):
            bits = _values(records[partly], self._layout.keep[name])
            flags = np.unpackbits(bits, axis=1, count=spec.positions, bitorder="little").view(np.bool_)
            if (flags.sum(axis=1) != counts[partly]).any():
                raise MovedError(f"{name}: other positions are kept than the catalog says")
            there = np.zeros((len(partly), longest), np.int64)
            there[keep[partly]] = np.nonzero(flags)[1]
            positions[partly] = there
        if name in self._layout.packed:
            values = np.ascontiguousarray(_values(records, self._layout.packed[name])[:, :longest])
            values[~keep] = 0
        else:  # what no payload fills is 0, so that padding is the same every time
            whole = len(counts) > 0 and int(counts.min()) == longest
            values = (np.empty if whole else np.zeros)((len(counts), longest, *spec.shape), str(spec.dtype))
        return values, positions, keep

    def _decode(
        self,
        name: str,
        where: NDArray[np.int64],
        counts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        values: NDArray[Any],
        pieces: Sequence[bytes],
        state: State,
    ) -> None:
        codec = self._layout.sharded[name].codec
        waiting = np.flatnonzero(where == PENDING).tolist()
        for row, piece in zip(waiting, pieces, strict=True):
            if counts[row]:
                codec.decode_into(piece[:-CRC_BYTES], values[row, : counts[row]])
        for part in self._by_segment(name, where, (counts > 0) & (where != PENDING), lengths, state):

            def decode(chosen: Sequence[int], part: Sequence[tuple[int, _Shard, int]] = part) -> None:
                for at in chosen:
                    row, shard, place = part[at]
                    start, length = shard.index[place].tolist()
                    payload = np.frombuffer(shard.data, np.uint8, length - CRC_BYTES, start)
                    try:
                        if self._verify == "always" or not shard.verified[place]:
                            _check(payload, shard.data[start + length - CRC_BYTES : start + length])
                            shard.verified[place] = True
                        codec.decode_into(payload, values[row, : counts[row]])
                    except CodecError as error:
                        raise MovedError(f"{shard.key} is damaged in row {place} ({error})") from error

            if codec.worth_threads:
                self._threads.run(decode, len(part))
            else:
                decode(range(len(part)))

    def _by_segment(
        self, name: str, where: NDArray[np.int64], there: NDArray[np.bool_], lengths: NDArray[np.int64], state: State
    ) -> Iterator[list[tuple[int, _Shard, int]]]:
        """Yield rows, their shards and places, of so many segments at a time as there are descriptors for."""
        rows = np.flatnonzero(there)
        if not len(rows):
            return
        rows = rows[np.argsort(where[rows], kind="stable")]
        segments, starts = np.unique(segment_of(where[rows]), return_index=True)
        for first in range(0, len(segments), self._most_maps):
            part: list[tuple[int, _Shard, int]] = []
            stops = [*starts.tolist(), len(rows)]
            chosen = range(first, min(first + self._most_maps, len(segments)))
            fetched = self._fetch(name, segments[chosen.start : chosen.stop].tolist(), state)
            for number in chosen:
                era, segment = divmod(int(segments[number]), 1 << 36)
                own = rows[stops[number] : stops[number + 1]]
                places = place_of(where[own])
                key = self._layout.shard_key(era, segment, name)
                known = self._known_rows(era, segment, state)
                shard = fetched.get(key) or self._shard(key, state.eras[era].rows, known, int(places[-1]))
                wrong = shard.index[places, 1] != lengths[own] + CRC_BYTES
                if wrong.any():
                    raise MovedError(f"{key}: row {int(places[wrong][0])} has no payload of the right size")
                part += [(row, shard, place) for row, place in zip(own.tolist(), places.tolist(), strict=True)]
            yield part

    def _known_rows(self, era: int, segment: int, state: State) -> int:
        """Return how many rows of a segment are sure not to change: those committed in this state."""
        known = state.eras[era]
        return known.open_rows if known.open == segment else known.rows

    def _fetch(self, name: str, segments: Sequence[int], state: State) -> dict[str, _Shard]:
        """Fetch the shards that are not held, at once; they are returned, because they can be more than is kept."""
        keys = [(self._layout.shard_key(*divmod(segment, 1 << 36), name), segment) for segment in segments]
        absent = [(key, segment) for key, segment in keys if key not in self._shards]
        fetched: dict[str, _Shard] = {}
        if len(absent) < 2:
            return fetched
        try:
            views = self._objects.views([key for key, _ in absent])
        except FormatError as error:
            raise MovedError(str(error)) from error
        for (key, segment), view in zip(absent, views, strict=True):
            era, number = divmod(segment, 1 << 36)
            if view is not None:
                known = self._known_rows(era, number, state)
                fetched[key] = self._hold(key, view.data, view.identity, state.eras[era].rows, known)
        return fetched

    def _shard(self, key: str, places: int, rows: int, last: int = 0) -> _Shard:
        shard = self._shards.get(key)
        # A file that was changed or replaced is mapped and verified again; names are write-once, so that is rare.
        if shard is not None and last < shard.rows and self._objects.identity(key) == shard.identity:
            self._shards.move_to_end(key)
            return shard
        try:
            view = self._objects.view(key)
        except FormatError as error:
            raise MovedError(str(error)) from error
        if view is None:
            raise MovedError(f"{key} is missing")
        return self._hold(key, view.data, view.identity, places, rows)

    def _hold(self, key: str, data: bytes | mmap.mmap, identity: object, places: int, rows: int) -> _Shard:
        self.fetched = True
        size = index_bytes(places)
        try:
            index = parse_index(data[-size:] if len(data) >= size else b"", places, len(data))
        except CodecError as error:
            raise MovedError(f"{key}: the index is damaged ({error})") from error
        self._drop_shard(key)
        shard = _Shard(key, data, identity, index, rows, np.zeros(places, np.bool_))
        self._shards[key] = shard
        self._cached_bytes += len(data) if isinstance(data, bytes) else 0
        while len(self._shards) > 1 and (
            len(self._shards) > self._most_maps or self._cached_bytes > _MOST_CACHED_BYTES
        ):
            self._drop_shard(next(iter(self._shards)))
        return shard

    def _drop_shard(self, key: str) -> None:
        shard = self._shards.pop(key, None)
        if shard is not None and isinstance(shard.data, bytes):
            self._cached_bytes -= len(shard.data)

    def _take_records(
        self, records: NDArray[np.uint8], where: NDArray[np.int64], needed: NDArray[np.bool_], state: State
    ) -> None:
        rows = np.flatnonzero(needed)
        if not len(rows):
            return
        rows = rows[np.argsort(where[rows], kind="stable")]
        segments, starts = np.unique(segment_of(where[rows]), return_index=True)
        wanted = {}
        for number, own in enumerate(np.split(rows, starts[1:])):
            era, segment = divmod(int(segments[number]), 1 << 36)
            wanted[self._layout.records_key(era, segment)] = era, segment, own, place_of(where[own])
        absent = [
            key
            for key, (_, _, _, places) in wanted.items()
            if key not in self._records or int(places[-1]) >= self._records[key][1]
        ]
        limit = max(most_row_bytes(self._layout.record_bytes * era.rows) for era in state.eras.values())
        for start in range(0, max(len(absent), 1), 64):
            part = absent[start : start + 64]
            for key, data in zip(part, self._get_many(part, limit), strict=True):
                era, segment = wanted[key][:2]
                self._hold_records(key, data, state.eras[era].rows, self._known_rows(era, segment, state))
        for key, (era, segment, own, places) in wanted.items():
            if key not in self._records:  # more than the cache holds
                data = self._get_many([key], limit)[0]
                self._hold_records(key, data, state.eras[era].rows, self._known_rows(era, segment, state))
            records[own] = self._records[key][0][places]
            self._records.move_to_end(key)

    def _get_many(self, keys: Sequence[str], limit: int) -> list[bytes | None]:
        try:
            return self._objects.get_many(keys, limit=limit)
        except FormatError as error:  # something far too long, or no file, under one of the names
            raise MovedError(str(error)) from error

    def _hold_records(self, key: str, data: bytes | None, places: int, rows: int) -> None:
        self.fetched = True
        if data is None:
            raise MovedError(f"{key} is missing")
        try:
            decoded = decode_rows(data, places, self._layout.record_bytes, "uint8")
        except CodecError as error:
            raise MovedError(f"{key} is damaged ({error})") from error
        self._records[key] = decoded, rows
        self._records.move_to_end(key)
        while len(self._records) > max(1, _MOST_CACHED_BYTES // decoded.nbytes):
            self._records.popitem(last=False)


def _check(payload: NDArray[np.uint8], checksum: bytes) -> None:
    if google_crc32c.value(payload).to_bytes(CRC_BYTES, "little") != checksum:
        raise CodecError("the checksum does not match")


def _values(records: NDArray[np.uint8], field: Field) -> NDArray[Any]:
    plain = records[:, field.start : field.start + field.num_bytes].copy(order="C")  # of one row, too
    stored = plain.view(np.dtype(field.dtype).newbyteorder("<")).reshape(len(records), *field.shape)
    return stored.astype(field.dtype, copy=False)
