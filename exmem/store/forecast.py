"""What the objects of a store will be after a change, before anything is changed."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.store.budgeted import BudgetedObjects
from exmem.store.catalog import Catalog, catalog_chunk_key
from exmem.store.chunks import CRC_BYTES, encode_rows, shard_bytes
from exmem.store.encode import Encoded
from exmem.store.layout import (
    CATALOG_CHUNK_ROWS,
    CATALOG_KEY,
    LOCK_KEY,
    Layout,
    RowArray,
    ShardedArray,
    to_bytes,
)
from exmem.store.measure import METADATA_SLACK_BYTES, Measure
from exmem.store.reader import Reader
from exmem.store.root import ROOT_KEY

__all__ = ["Forecast"]

_MIN_CAPACITY = 64
_MAX_SHARD_SLOTS = 8192
_SHARD_TOLERANCE = 1.5  # a shard may exceed its target by this, so that few slots are passed over


class Forecast:
    """Answers what would be put; changes nothing. The time does not depend on how much is stored.

    Parameters
    ----------
    objects : BudgetedObjects
        The objects of the store as they are.
    layout : Layout
        Its layout.
    catalog : Catalog
        What is committed and staged.
    reader : Reader
        Reads what would be rewritten.
    shard_target_bytes : int
        Size that a shard should have.
    """

    def __init__(
        self, objects: BudgetedObjects, layout: Layout, catalog: Catalog, reader: Reader, *, shard_target_bytes: int
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._catalog = catalog
        self._reader = reader
        self._shard_target_bytes = shard_target_bytes
        self._documents_bounds: dict[int, list[int]] = {}
        self.shard_slots = catalog.shard_slots
        self.next_slot = catalog.num_slots
        self.num_staged = 0
        self.waiting: dict[int, Encoded] = {}  # slot -> what of it has not been put

    def choose_shard_slots(self, exemplars: Sequence[Encoded]) -> int:
        """Return the slots of a shard: recorded, or chosen from the mean size of the first exemplars."""
        if self.shard_slots or not exemplars or not self._layout.sharded:
            return self.shard_slots or (1 if exemplars else 0)
        mean = sum(_group_bytes(exemplar) for exemplar in exemplars) / len(exemplars)
        return int(min(max(self._shard_target_bytes // max(mean, 1), 1), _MAX_SHARD_SLOTS))

    def assign(self, exemplars: Sequence[Encoded]) -> list[int]:
        """Return the slots that exemplars would get: the next ones, passing over the rest of a shard that is full."""
        shard_slots = self.choose_shard_slots(exemplars)
        slot, slots = self.next_slot, []
        in_group = self._bytes_in_group(slot // shard_slots, shard_slots) if exemplars else 0
        for exemplar in exemplars:
            needed = _group_bytes(exemplar)
            if slot % shard_slots == 0:
                in_group = 0
            elif in_group + needed > self._shard_target_bytes * _SHARD_TOLERANCE:
                slot += shard_slots - slot % shard_slots
                in_group = 0
            in_group += needed
            slots.append(slot)
            slot += 1
        return slots

    def rows(self, exemplars: Sequence[Encoded]) -> NDArray[np.int64]:
        """Return the catalog's rows of exemplars, shape (M, columns), int64."""
        table = [
            [
                exemplar.label,
                int(np.float64(exemplar.priority).view(np.int64)),
                *(exemplar.counts[name] for name in self._layout.schema.modalities),
                *(exemplar.payload_bytes.get(name, 0) for name in self._layout.sharded),
            ]
            for exemplar in exemplars
        ]
        return np.array(table, np.int64).reshape(len(exemplars), len(self._catalog.columns))

    def capacity(self, num_slots: int) -> int:
        """Return the rows that the arrays get for so many slots."""
        return max(self._catalog.capacity, _MIN_CAPACITY, 1 << max(num_slots - 1, 0).bit_length())

    def documents(self, num_slots: int, shard_slots: int) -> dict[str, bytes]:
        """Return the metadata objects that a commit has to put, the commit point last."""
        capacity, documents = self.capacity(num_slots), {}
        if (capacity, shard_slots) != (self._catalog.capacity, self._catalog.shard_slots):
            documents.update(self._layout.array_documents(capacity, shard_slots))
        documents[CATALOG_KEY] = self._layout.catalog_document(
            slots=num_slots, generation=self._catalog.generation + 1, shard_slots=shard_slots, capacity=capacity
        )
        return {key: to_bytes(document) for key, document in documents.items()}

    def shard_bytes(
        self,
        array: ShardedArray,
        shard: int,
        shard_slots: int,
        *,
        without: Collection[int] = (),
        also: Mapping[int, Encoded] | None = None,
    ) -> int:
        """Return the size of a shard, after removing some slots and adding others."""
        first = shard * shard_slots
        slots, rows = self._catalog.within(first, first + shard_slots)
        sizes = rows[:, self._catalog.columns.index(f"{array.modality}.bytes")]
        sizes = sizes[~np.isin(slots, [*without])] if without else sizes
        more = [e.payload_bytes.get(array.modality, 0) for s, e in (also or {}).items() if s // shard_slots == shard]
        count = int(np.count_nonzero(sizes)) + sum(size > 0 for size in more)
        return shard_bytes(int(sizes.sum()) + sum(more), count, shard_slots)

    def encode_rows(
        self,
        array: RowArray,
        chunk: int,
        *,
        without: Collection[int] = (),
        also: Mapping[int, Encoded] | None = None,
        waiting: bool = True,
    ) -> bytes | None:
        """Return a chunk of a row array as it would be put, None when no slot in it is live.

        Parameters
        ----------
        array : RowArray
            The array.
        chunk : int
            Number of the chunk.
        without : collection of int
            Slots that would be removed.
        also : mapping of int to Encoded
            Exemplars that would be added.
        waiting : bool
            Whether rows that wait in RAM are written.

        Returns
        -------
        bytes or None
            The chunk.
        """
        first = chunk * array.chunk_rows
        live, _ = self._catalog.within(first, first + array.chunk_rows)
        left = [slot for slot in live.tolist() if slot not in without]
        rows, held = np.zeros((array.chunk_rows, *array.shape), array.dtype), False
        stored = self._reader.chunk(array, chunk) if left else rows
        for slot in left:
            exemplar = self.waiting.get(slot)
            if exemplar is None or array.path not in exemplar.rows:
                rows[slot - first] = stored[slot - first]
            elif waiting:
                rows[slot - first] = exemplar.rows[array.path]
            else:
                continue
            held = True
        for slot, exemplar in (also or {}).items():
            if slot // array.chunk_rows == chunk:
                rows[slot - first], held = exemplar.rows[array.path], True
        return encode_rows(rows) if held else None

    def measure(self, evicted: Collection[int], added: Sequence[Encoded]) -> Measure:
        """Measure what the objects will take after evicting and adding, and the room to rewrite any of them.

        Parameters
        ----------
        evicted : collection of int
            Slots to be evicted; staged ones too.
        added : sequence of Encoded
            Exemplars to be added after what is staged.

        Returns
        -------
        Measure
            Bytes, exactly as they will be after a commit. Nothing is changed.
        """
        gone, catalog = set(evicted), self._catalog
        if not gone and not self.num_staged and not added:
            return self._measure({}, self.shard_slots)
        also = dict(zip(self.assign(added), added, strict=True))
        shard_slots = self.choose_shard_slots(added)
        stop = max([self.next_slot, *(slot + 1 for slot in also)])
        sizes: dict[str, int] = {
            key: len(data) for key, data in self.documents(stop, shard_slots or catalog.shard_slots).items()
        }
        rows = dict(zip(also, self.rows(added).tolist(), strict=True))
        touched = [*gone, *self.waiting, *also]
        chunks = {slot // CATALOG_CHUNK_ROWS for slot in touched}
        if self.num_staged or also:
            chunks |= set(range(catalog.num_slots // CATALOG_CHUNK_ROWS, (stop - 1) // CATALOG_CHUNK_ROWS + 1))
        for chunk in chunks:
            data = catalog.encode_chunk(chunk, without=[*gone], also=rows)
            sizes[catalog_chunk_key(chunk)] = len(data or b"")
        for array in self._layout.rows:
            for chunk in {slot // array.chunk_rows for slot in touched}:
                data = self.encode_rows(array, chunk, without=gone, also=also)
                sizes[array.key(chunk)] = len(data or b"")
        for sharded in self._layout.sharded.values():
            for shard in {slot // shard_slots for slot in touched}:
                sizes[sharded.key(shard)] = self.shard_bytes(sharded, shard, shard_slots, without=gone, also=also)
        return self._measure(sizes, shard_slots)

    def bound(self, added: Sequence[Encoded]) -> int:
        """Return bytes that are certainly enough for objects and reserve after adding; quick to tell.

        Parameters
        ----------
        added : sequence of Encoded
            Exemplars to be added after what is staged.

        Returns
        -------
        int
            At least the sum of `measure([], added)`.
        """
        also = dict(zip(self.assign(added), added, strict=True))
        shard_slots = self.choose_shard_slots(added)
        stop = max([self.next_slot, *(slot + 1 for slot in also)])
        parts = self._documents_bound(shard_slots)
        first = self._catalog.num_slots // CATALOG_CHUNK_ROWS
        width = 8 * len(self._catalog.columns)
        parts += [_zstd_bound(CATALOG_CHUNK_ROWS * width)] * ((stop - 1) // CATALOG_CHUNK_ROWS - first + 1)
        slots = [*self.waiting, *also]
        for array in self._layout.rows:
            number = len({slot // array.chunk_rows for slot in slots})
            parts += [_zstd_bound(array.chunk_rows * array.row_bytes)] * number
        for sharded in self._layout.sharded.values():
            shards = {slot // shard_slots for slot in slots}
            parts += [self.shard_bytes(sharded, shard, shard_slots, also=also) for shard in shards]
        largest = max([self._objects.largest(groups=self._never_rewritten(shard_slots)), *parts])
        return self._objects.total_bytes + sum(parts) + largest + METADATA_SLACK_BYTES

    def bound_alone(self, exemplar: Encoded) -> int:
        """Return bytes that are certainly enough for objects and reserve if everything else were evicted.

        Parameters
        ----------
        exemplar : Encoded
            What would be left.

        Returns
        -------
        int
            At least what `measure` would say.
        """
        shard_slots = self.choose_shard_slots([exemplar])
        metadata = [ROOT_KEY, LOCK_KEY, CATALOG_KEY, *self._layout.group_documents()]
        parts = [self._objects.sizes.get(key, 0) for key in metadata]
        parts += self._documents_bound(shard_slots)
        parts.append(_zstd_bound(CATALOG_CHUNK_ROWS * 8 * len(self._catalog.columns)))
        parts += [_zstd_bound(array.chunk_rows * array.row_bytes) for array in self._layout.rows]
        parts += [shard_bytes(exemplar.payload_bytes.get(name, 0), 1, shard_slots) for name in self._layout.sharded]
        return sum(parts) + max(parts) + 2 * METADATA_SLACK_BYTES

    def _measure(self, sizes: Mapping[str, int], shard_slots: int) -> Measure:
        held = self._objects.sizes
        never = self._never_rewritten(shard_slots)
        total = self._objects.total_bytes + sum(size - held.get(key, 0) for key, size in sizes.items())
        largest = self._objects.largest(without=sizes, groups=never)
        largest = max([largest, *(size for key, size in sizes.items() if key.rpartition("/c.")[0] not in never)])
        return Measure(total, largest + METADATA_SLACK_BYTES)

    def _documents_bound(self, shard_slots: int) -> list[int]:
        if shard_slots not in self._documents_bounds:
            documents = [*self._layout.array_documents(2**40, shard_slots).values()]
            documents.append(
                self._layout.catalog_document(slots=2**40, generation=2**40, shard_slots=shard_slots, capacity=2**40)
            )
            self._documents_bounds[shard_slots] = [len(to_bytes(document)) for document in documents]
        return self._documents_bounds[shard_slots].copy()

    def _never_rewritten(self, shard_slots: int) -> list[str]:
        """Arrays whose chunks are put and deleted, never rewritten: shards of one exemplar."""
        return [array.path for array in self._layout.sharded.values()] if shard_slots == 1 else []

    def _bytes_in_group(self, shard: int, shard_slots: int) -> int:
        _, rows = self._catalog.within(shard * shard_slots, (shard + 1) * shard_slots)
        columns = [rows[:, self._catalog.columns.index(f"{name}.bytes")] for name in self._layout.sharded]
        return sum(int(column.sum()) + CRC_BYTES * int(np.count_nonzero(column)) for column in columns)


def _group_bytes(exemplar: Encoded) -> int:
    return sum(exemplar.payload_bytes.values()) + CRC_BYTES * len(exemplar.payload_bytes)


def _zstd_bound(size: int) -> int:
    return size + size // 128 + 512 + CRC_BYTES  # above ZSTD_COMPRESSBOUND for every size
