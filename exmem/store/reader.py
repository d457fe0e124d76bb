"""Reading exemplars: decode straight out of mapped shards into the rows of the batch, in a thread pool."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CodecError, CorruptExemplarError, FormatError
from exmem.store.catalog import PENDING, Catalog
from exmem.store.format.chunks import CRC_BYTES, most_row_bytes
from exmem.store.format.layout import Field, Layout
from exmem.store.format.state import State
from exmem.store.mapped import Mapped, MovedError, Shard
from exmem.store.objects import Objects
from exmem.store.segments import Rows, parse_catalog
from exmem.store.threads import Threads
from exmem.tokens import PaddedTokens, TokenBatch

__all__ = ["Reader"]

_Wanted = tuple[int, int, int, int]  # row of the batch, where it lies, bytes of its payload, its tokens


class Reader:
    """Reads what the rows of a catalog refer to.

    A payload's checksum is compared at its first read and after its file changed (`verify="once"`), or each time.
    """

    def __init__(
        self, objects: Objects, layout: Layout, *, threads: Threads, verify: Literal["once", "always"] = "once"
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._threads = threads
        self._again = verify == "always"
        self.mapped: Mapped = Mapped(objects, layout)

    def close(self) -> None:
        """Stop the threads and drop everything kept."""
        self.mapped.clear()
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
        self._take_records(records, where, np.flatnonzero(needed & (where != PENDING)), state)
        tokens = {}
        for number, name in enumerate(self._layout.schema.modalities):
            values, positions, valid = self._padded(name, counts[:, number], records)
            if name in self._layout.sharded:
                column = list(self._layout.sharded).index(name)
                pieces = [pending.pieces[name][index] for index in waiting]
                self._decode(name, where, counts[:, number], lengths[:, column], values, pieces, state)
            tokens[name] = PaddedTokens(values, positions, valid)
        extras = {name: _values(records, field) for name, field in self._layout.extras.items()}
        return TokenBatch(tokens, catalog.labels_at(rows), catalog.priorities_at(rows), extras, slots)

    def segment(
        self, era: int, segment: int, state: State, places: NDArray[np.int64] | None = None, *, rebuild: bool = False
    ) -> Rows:
        """Return committed rows of a segment as they are stored; with `rebuild`, records are made again if they can."""
        layout, key = self._layout, self._layout.catalog_key(era, segment)
        try:
            catalog = self.table(era, segment, state)
            chosen = np.arange(len(catalog)) if places is None else places
            if len(chosen) and int(chosen[-1]) >= len(catalog):
                raise CodecError("it has too few rows")
            catalog = catalog[chosen]
            records = np.zeros((len(catalog), layout.record_bytes), np.uint8)
            where = (era << 36 | segment) << 8 | chosen
            try:
                self._take_records(records, where, np.arange(len(catalog)), state)
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

    def table(self, era: int, segment: int, state: State) -> NDArray[np.int64]:
        """Return the committed rows of a segment in the catalog, (n, columns); CodecError if they are damaged."""
        layout, written = self._layout, state.eras[era]
        limit = most_row_bytes(8 * len(layout.columns) * written.rows)
        table = parse_catalog(
            self._objects.get(layout.catalog_key(era, segment), limit=limit) or b"", layout, written.rows
        )
        if segment != written.open:
            return table
        if len(table) < written.open_rows:
            raise CodecError(f"it has {len(table)} rows, {written.open_rows} were committed")
        return table[: written.open_rows]  # behind them lies what a commit that did not happen left

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
            segment_name = era << 36 | segment
            shard = self.mapped.shards(name, {segment_name: int(places[held[-1]])}, state)[segment_name]
            for row in held:
                pieces[row] = shard.piece(int(places[row]), int(lengths[row]))
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
        valid = np.arange(longest) < counts[:, None]
        positions = np.where(valid, np.arange(longest), 0)
        partly = np.flatnonzero((counts > 0) & (counts < spec.positions))  # of all others the positions are known
        if len(partly):
            bits = _values(records[partly], self._layout.keep[name])
            flags = np.unpackbits(bits, axis=1, count=spec.positions, bitorder="little").view(np.bool_)
            if (flags.sum(axis=1) != counts[partly]).any():
                raise MovedError(f"{name}: other positions are kept than the catalog says")
            kept_positions = np.zeros((len(partly), longest), np.int64)
            kept_positions[valid[partly]] = np.flatnonzero(flags) % spec.positions
            positions[partly] = kept_positions
        if name in self._layout.packed:
            values = np.ascontiguousarray(_values(records, self._layout.packed[name])[:, :longest])
            values[~valid] = 0
        else:  # what no payload fills is 0, so that padding is the same every time
            whole = len(counts) > 0 and int(counts.min()) == longest
            values = (np.empty if whole else np.zeros)((len(counts), longest, *spec.shape), str(spec.dtype))
        return values, positions, valid

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
        for row, piece in zip(np.flatnonzero(where == PENDING).tolist(), pieces, strict=True):
            if counts[row]:
                codec.decode_into(piece[:-CRC_BYTES], values[row, : counts[row]])
        rows = np.flatnonzero((counts > 0) & (where != PENDING))
        last = _last_places(where[rows])
        names = list(last)
        wanted = list(
            zip(rows.tolist(), where[rows].tolist(), lengths[rows].tolist(), counts[rows].tolist(), strict=True)
        )
        for start in range(0, len(names), self.mapped.most_at_once):  # as many as there are descriptors for
            some = {segment: last[segment] for segment in names[start : start + self.mapped.most_at_once]}
            batch = wanted if len(some) == len(names) else [one for one in wanted if one[1] >> 8 in some]
            self._decode_some(name, some, batch, values, state)

    def _decode_some(
        self, name: str, last: Mapping[int, int], batch: Sequence[_Wanted], values: NDArray[Any], state: State
    ) -> None:
        """Decode payloads of segments that are mapped at once, and no longer than this takes."""
        codec, shards = self._layout.sharded[name].codec, self.mapped.shards(name, last, state)
        if codec.copies:
            self._copy(batch, shards, values, codec.token_bytes)
            return

        def decode(chosen: Sequence[int]) -> None:
            for at in chosen:
                row, place, length, count = batch[at]
                shard = shards[place >> 8]
                payload = shard.payload(place & 0xFF, length, again=self._again)
                try:
                    codec.decode_into(payload, values[row, :count])
                except CodecError as error:
                    raise MovedError(f"{shard.key} is damaged in row {place & 0xFF} ({error})") from error

        if codec.worth_threads:
            self._threads.run(decode, len(batch))
        else:
            decode(range(len(batch)))

    def _copy(self, batch: Sequence[_Wanted], shards: dict[int, Shard], values: NDArray[Any], token_bytes: int) -> None:
        """Copy payloads that are the values' own bytes; all are looked up first, large copies empty the caches."""
        copies = []
        for row, place, length, count in batch:
            if length != count * token_bytes:
                raise MovedError(
                    f"{shards[place >> 8].key} has {length} bytes in row {place & 0xFF} for {count} tokens"
                )
            copies.append((row, length, shards[place >> 8].payload(place & 0xFF, length, again=self._again)))
        flat = values.reshape(len(values), -1).view(np.uint8)
        for row, length, payload in copies:
            flat[row, :length] = payload

    def _take_records(
        self, records: NDArray[np.uint8], where: NDArray[np.int64], rows: NDArray[np.int64], state: State
    ) -> None:
        places, size = where[rows], self._layout.record_bytes
        by_segment = self.mapped.records(_last_places(places), state)
        parts = [
            by_segment[place >> 8][(place & 0xFF) * size : (place & 0xFF) * size + size] for place in places.tolist()
        ]
        records[rows] = np.frombuffer(b"".join(parts), np.uint8).reshape(len(rows), size)


def _last_places(where: NDArray[np.int64]) -> dict[int, int]:
    """Return the last place that is needed of each segment."""
    last: dict[int, int] = {}
    for place in where.tolist():
        segment = place >> 8
        if last.get(segment, -1) < place & 0xFF:
            last[segment] = place & 0xFF
    return last


def _values(records: NDArray[np.uint8], field: Field) -> NDArray[Any]:
    plain = records[:, field.start : field.start + field.num_bytes].copy(order="C")  # of one row, too
    stored = plain.view(np.dtype(field.dtype).newbyteorder("<")).reshape(len(records), *field.shape)
    return stored.astype(field.dtype, copy=False)
