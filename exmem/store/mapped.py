"""Shards and records of a store, mapped or fetched once and kept: names are write-once."""

import collections
import dataclasses
import mmap
import resource
from collections.abc import Mapping, Sequence

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from exmem.errors import CodecError, FormatError
from exmem.store.format.chunks import CRC_BYTES, decode_rows, index_bytes, most_row_bytes, parse_index
from exmem.store.format.layout import Layout, parse_key
from exmem.store.format.state import State
from exmem.store.objects import Objects, View

__all__ = ["Mapped", "MovedError", "Shard"]

_MOST_MAPS = 512  # open mappings, each with a descriptor
_MOST_CACHED_BYTES = 64 * 2**20  # shards held in RAM (remote stores), and decoded records


class MovedError(Exception):
    """An object is not there, or holds fewer rows than it should: its exemplars were moved, evicted or damaged."""


@dataclasses.dataclass(eq=False)
class Shard:
    """A mapped shard; its rows below `rows` are right, and `payloads` are those whose checksum was compared."""

    key: str
    data: bytes | mmap.mmap
    identity: object
    index: NDArray[np.int64]
    rows: int
    payloads: list[NDArray[np.uint8] | None]

    def payload(self, place: int, length: int, *, again: bool = False) -> NDArray[np.uint8]:
        """Return the payload of a row, its checksum compared once, or `again`; MovedError if it is not that long."""
        payload = self.payloads[place]
        if payload is None or again:
            start, stored = self.index[place].tolist()
            if stored != length + CRC_BYTES:
                raise MovedError(f"{self.key}: row {place} has no payload of {length} bytes")
            payload = np.frombuffer(self.data, np.uint8, length, start)
            checksum = self.data[start + length : start + stored]
            if google_crc32c.value(payload).to_bytes(CRC_BYTES, "little") != checksum:
                raise MovedError(f"{self.key} is damaged in row {place} (the checksum does not match)")
            self.payloads[place] = payload
        elif len(payload) != length:
            raise MovedError(f"{self.key}: row {place} has no payload of {length} bytes")
        return payload

    def piece(self, place: int, length: int) -> bytes:
        """Return the payload of a row with its checksum, as it is; MovedError if it is not that long."""
        start, stored = self.index[place].tolist()
        if stored != length + CRC_BYTES:
            raise MovedError(f"{self.key}: row {place} has no payload of {length} bytes")
        return bytes(self.data[start : start + stored])


class Mapped:
    """The objects of segments (named era << 36 | segment) that were read before."""

    def __init__(self, objects: Objects, layout: Layout) -> None:
        self._objects = objects
        self._layout = layout
        self._shards: collections.OrderedDict[tuple[str, int], Shard] = collections.OrderedDict()
        self._records: collections.OrderedDict[int, tuple[bytes, int]] = collections.OrderedDict()
        self._cached_bytes = 0
        self.most_at_once: int = max(8, min(_MOST_MAPS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self.fetched: bool = False  # whether an object was fetched since this was set to False

    def forget(self, key: str) -> None:
        """Drop what is kept of an object that was put or deleted."""
        parsed = parse_key(key)
        if parsed is not None and parsed[2] is not None:
            name = parsed[0] << 36 | parsed[2]
            self._drop((parsed[1], name))
            if parsed[1] == "records":
                self._records.pop(name, None)

    def clear(self) -> None:
        """Drop everything."""
        self._shards.clear()
        self._records.clear()
        self._cached_bytes = 0

    def shards(self, modality: str, last: Mapping[int, int], state: State) -> dict[int, Shard]:
        """Return the shards of some segments, `most_at_once` at most, given the last row that is needed of each."""
        shards, absent = {}, []
        for name, place in last.items():
            shard = self._shards.get((modality, name))
            # A file that was changed or replaced is mapped and verified again; names are write-once, so that is rare.
            if shard is None or place >= shard.rows or self._objects.identity(shard.key) != shard.identity:
                absent.append(name)
                continue
            self._shards.move_to_end((modality, name))
            shards[name] = shard
        while self._shards and len(self._shards) + len(absent) > self.most_at_once:  # before others are mapped
            self._drop(next(iter(self._shards)))
        keys = [self._layout.shard_key(*divmod(name, 1 << 36), modality) for name in absent]
        try:
            views = self._objects.views(keys) if keys else []
        except FormatError as error:
            raise MovedError(str(error)) from error
        for name, key, view in zip(absent, keys, views, strict=True):
            shards[name] = self._hold((modality, name), key, view, state)
        return shards

    def records(self, last: Mapping[int, int], state: State) -> dict[int, bytes]:
        """Return the decoded records of some segments, rows one behind the other, given the last that is needed."""
        records, absent = {}, []
        for name, place in last.items():
            kept = self._records.get(name)
            if kept is None or place >= kept[1]:
                absent.append(name)
                continue
            self._records.move_to_end(name)
            records[name] = kept[0]
        if absent:
            limit = max(most_row_bytes(self._layout.record_bytes * era.rows) for era in state.eras.values())
            keys = [self._layout.records_key(*divmod(name, 1 << 36)) for name in absent]
            for name, key, data in zip(absent, keys, self._get_many(keys, limit), strict=True):
                records[name] = self._hold_records(name, key, data, state)
        return records

    def _get_many(self, keys: Sequence[str], limit: int) -> list[bytes | None]:
        try:
            return self._objects.get_many(keys, limit=limit)
        except FormatError as error:  # something far too long, or no file, under one of the names
            raise MovedError(str(error)) from error

    def _hold(self, name: tuple[str, int], key: str, view: View | None, state: State) -> Shard:
        self.fetched = True
        if view is None:
            raise MovedError(f"{key} is missing")
        places = state.eras[name[1] >> 36].rows
        size, data = index_bytes(places), view.data
        try:
            index = parse_index(data[-size:] if len(data) >= size else b"", places, len(data))
        except CodecError as error:
            raise MovedError(f"{key}: the index is damaged ({error})") from error
        self._drop(name)
        shard = Shard(key, data, view.identity, index, _sure_rows(name[1], state), [None] * places)
        self._shards[name] = shard
        self._cached_bytes += len(data) if isinstance(data, bytes) else 0
        while len(self._shards) > 1 and self._cached_bytes > _MOST_CACHED_BYTES:
            self._drop(next(iter(self._shards)))
        return shard

    def _drop(self, name: tuple[str, int]) -> None:
        shard = self._shards.pop(name, None)
        if shard is not None and isinstance(shard.data, bytes):
            self._cached_bytes -= len(shard.data)

    def _hold_records(self, name: int, key: str, data: bytes | None, state: State) -> bytes:
        self.fetched = True
        if data is None:
            raise MovedError(f"{key} is missing")
        try:
            decoded = decode_rows(data, state.eras[name >> 36].rows, self._layout.record_bytes, "uint8").tobytes()
        except CodecError as error:
            raise MovedError(f"{key} is damaged ({error})") from error
        self._records[name] = decoded, _sure_rows(name, state)
        self._records.move_to_end(name)
        while len(self._records) > max(1, _MOST_CACHED_BYTES // len(decoded)):
            self._records.popitem(last=False)
        return decoded


def _sure_rows(name: int, state: State) -> int:
    """Return how many rows of a segment are sure not to change: those committed in this state."""
    era = state.eras[name >> 36]
    return era.open_rows if era.open == name & (1 << 36) - 1 else era.rows
