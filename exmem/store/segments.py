"""Rows of exemplars as they are stored, and the objects of the segments that hold them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CodecError
from exmem.store.format.chunks import CRC_BYTES, build_shard, decode_rows, encode_rows, index_bytes
from exmem.store.format.layout import Layout
from exmem.store.sizes import exemplar_bytes

__all__ = ["Rows", "parse_catalog", "segment_objects", "stored_bytes"]

_SLOT, _GENERATION, _LABEL, _PRIORITY = range(4)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """N exemplars as they are stored: encoded once, and copied as they are from then on.

    `catalog` is (N, columns) int64, `records` (N, record bytes) uint8; `pieces` holds the payload with its checksum of
    each exemplar by sharded modality, empty where it has none.
    """

    layout: Layout
    catalog: NDArray[np.int64]
    records: NDArray[np.uint8]
    pieces: Mapping[str, Sequence[bytes]]

    def __len__(self) -> int:
        return len(self.catalog)

    @classmethod
    def none(cls, layout: Layout) -> "Rows":
        """Return no exemplars."""
        return cls.listed(layout, np.zeros((0, len(layout.columns)), np.int64))

    @classmethod
    def listed(cls, layout: Layout, catalog: NDArray[np.int64]) -> "Rows":
        """Return exemplars of which only the catalog is known."""
        records = np.zeros((len(catalog), layout.record_bytes), np.uint8)
        return cls(layout, catalog, records, {name: [b""] * len(catalog) for name in layout.sharded})

    @property
    def slots(self) -> NDArray[np.int64]:
        """Their slots."""
        return self.catalog[:, _SLOT]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their classes."""
        return self.catalog[:, _LABEL]

    @property
    def priorities(self) -> NDArray[np.float64]:
        """Their priorities."""
        return self.catalog[:, _PRIORITY].copy().view(np.float64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Their kept tokens by modality, (N, modalities)."""
        return self.catalog[:, self.layout.first_count : self.layout.first_length]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Their payload bytes by sharded modality, (N, sharded)."""
        return self.catalog[:, self.layout.first_length :]

    @functools.cached_property
    def sizes(self) -> NDArray[np.int64]:
        """What each is accounted with."""
        return exemplar_bytes(self.layout, self.lengths)

    @property
    def payload_bytes(self) -> int:
        """Their payloads with checksums."""
        return int(self.lengths.sum()) + CRC_BYTES * int((self.lengths > 0).sum())

    def take(self, indices: Sequence[int] | NDArray[Any]) -> "Rows":
        """Return some of them, in this order."""
        chosen = np.asarray(indices, np.int64)
        pieces = {name: [parts[index] for index in chosen.tolist()] for name, parts in self.pieces.items()}
        return Rows(self.layout, self.catalog[chosen], self.records[chosen], pieces)

    def joined(self, *others: "Rows") -> "Rows":
        """Return these and others behind them."""
        parts = [rows for rows in (self, *others) if len(rows)]
        if len(parts) < 2:
            return parts[0] if parts else self
        return Rows(
            self.layout,
            np.concatenate([rows.catalog for rows in parts]),
            np.concatenate([rows.records for rows in parts]),
            {name: [piece for rows in parts for piece in rows.pieces[name]] for name in self.pieces},
        )

    def named(self, slots: NDArray[np.int64], generation: int) -> "Rows":
        """Return the same exemplars under these slots, written in this generation."""
        catalog = self.catalog.copy()
        catalog[:, _SLOT], catalog[:, _GENERATION] = slots, generation
        return dataclasses.replace(self, catalog=catalog)

    def with_priorities(self, priorities: NDArray[np.float64]) -> "Rows":
        """Return the same exemplars with other priorities."""
        catalog = self.catalog.copy()
        catalog[:, _PRIORITY] = priorities.view(np.int64)
        return dataclasses.replace(self, catalog=catalog)


def segment_objects(rows: Rows, era: int, segment: int, places: int) -> dict[str, bytes]:
    """Return the objects of a segment of `places` rows that holds these exemplars, the catalog's last."""
    layout, objects = rows.layout, {}
    for name, pieces in rows.pieces.items():
        if any(pieces):
            objects[layout.shard_key(era, segment, name)] = build_shard(pieces, places)
    objects[layout.records_key(era, segment)], objects[layout.catalog_key(era, segment)] = _row_chunks(rows, places)
    return objects


def stored_bytes(rows: Rows, places: int) -> int:
    """Return the size of the segment that would hold these exemplars, without building it."""
    shards = sum(index_bytes(places) for pieces in rows.pieces.values() if any(pieces))
    return rows.payload_bytes + shards + sum(map(len, _row_chunks(rows, places)))


def parse_catalog(data: bytes, layout: Layout, places: int) -> NDArray[np.int64]:
    """Return the rows in use of a chunk of the catalog, (n, columns); CodecError if it is damaged or impossible."""
    table = decode_rows(data, places, len(layout.columns), "int64")
    used = table[:, _GENERATION] >= 0
    count = int(used.sum())
    if not used[:count].all():
        raise CodecError("its rows in use do not come first")
    table = table[:count]
    table[:, _SLOT] = np.cumsum(table[:, _SLOT])
    counts = table[:, layout.first_count : layout.first_length]
    if (table[:, _SLOT] < 0).any() or (table[:, layout.first_count :] < 0).any() or (counts > layout.most_tokens).any():
        raise CodecError("it claims sizes that the schema does not allow")
    if (table[:, layout.first_length :] >= 2**32).any():
        raise CodecError("it claims payloads of more than 4 GiB")
    return table


def _row_chunks(rows: Rows, places: int) -> tuple[bytes, bytes]:
    catalog = rows.catalog.copy()
    catalog[1:, _SLOT] -= rows.catalog[:-1, _SLOT]  # neighbours differ by little: that compresses
    return encode_rows(rows.records, places, 0), encode_rows(catalog, places, -1)
