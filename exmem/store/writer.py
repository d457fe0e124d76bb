"""Changing a store: stage, measure, commit, evict, recover (format 1, the commit protocol)."""

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from exmem.errors import CorruptExemplarError, StaleSnapshotError
from exmem.store.catalog import Catalog, catalog_chunk_key
from exmem.store.chunks import CRC_BYTES, append_crc, build_shard, encode_rows, index_bytes, shard_bytes
from exmem.store.encode import Encoded
from exmem.store.layout import CATALOG_CHUNK_ROWS, CATALOG_KEY, Layout, RowArray, ShardedArray, to_bytes
from exmem.store.measure import Measure, reserve_bytes
from exmem.store.objects import TEMPORARY, BudgetedObjects
from exmem.store.reader import Reader

__all__ = ["Writer"]

_MIN_CAPACITY = 64
_MAX_SHARD_SLOTS = 1024
_SHARD_TOLERANCE = 1.5  # a shard may exceed its target by this, so that few slots are passed over


class Writer:
    """The only thing that changes a store; the caller has decided before that it fits.

    Parameters
    ----------
    objects : BudgetedObjects
        The objects of the store.
    layout : Layout
        Its layout.
    catalog : Catalog
        The committed state.
    reader : Reader
        Reads what is rewritten.
    shard_target_bytes : int
        Size that a shard should have.
    """

    def __init__(
        self, objects: BudgetedObjects, layout: Layout, catalog: Catalog, reader: Reader, *, shard_target_bytes: int
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._reader = reader
        self._shard_target_bytes = shard_target_bytes
        self.catalog = catalog
        self.staged: dict[int, Encoded] = {}
        self._shard_slots = catalog.shard_slots
        self._next_slot = catalog.num_slots

    @property
    def next_slot(self) -> int:
        """The number the next exemplar gets, or a higher one where a shard is full."""
        return self._next_slot

    def choose_shard_slots(self, exemplars: Sequence[Encoded]) -> int:
        """Return the slots of a shard: recorded, or chosen from the mean size of the first exemplars."""
        if self._shard_slots or not exemplars or not self._layout.sharded:
            return self._shard_slots or (1 if exemplars else 0)
        mean = sum(self._group_bytes(exemplar) for exemplar in exemplars) / len(exemplars)
        return int(min(max(self._shard_target_bytes // max(mean, 1), 1), _MAX_SHARD_SLOTS))

    def assign(self, exemplars: Sequence[Encoded]) -> list[int]:
        """Return the slots that exemplars would get: the next ones, passing over the rest of a shard that is full."""
        shard_slots = self.choose_shard_slots(exemplars)
        slot, slots = self._next_slot, []
        in_group = self._bytes_in_group(slot // shard_slots if shard_slots else 0, shard_slots)
        for exemplar in exemplars:
            needed = self._group_bytes(exemplar)
            if slot % shard_slots == 0:
                in_group = 0
            elif in_group + needed > self._shard_target_bytes * _SHARD_TOLERANCE:
                slot += shard_slots - slot % shard_slots
                in_group = 0
            in_group += needed
            slots.append(slot)
            slot += 1
        return slots

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
            Bytes, exactly as they would be. Nothing is changed.
        """
        gone = set(evicted)
        if not gone and not self.staged and not added:
            sizes = self._objects.sizes
            return Measure(self._objects.total_bytes, reserve_bytes(sizes, self._layout, self._shard_slots))
        staged = {slot: exemplar for slot, exemplar in self.staged.items() if slot not in gone}
        staged.update(zip(self.assign(added), added, strict=True))
        shard_slots = self.choose_shard_slots([*staged.values()])
        committed_gone = [slot for slot in gone if slot not in self.staged]
        catalog = self._merged(self.catalog.without(committed_gone), staged)
        catalog = catalog.arranged(shard_slots=shard_slots, capacity=self._capacity(catalog))
        touched = [*gone, *staged]
        sizes = dict(self._objects.sizes)
        for key, data in self._documents(catalog, shard_slots).items():
            sizes[key] = len(data)
        for key in self._catalog_chunks(touched):
            sizes[key] = len(catalog.encode_chunk(int(key.split(".")[1])) or b"")
        for array in self._layout.rows:
            for chunk in sorted({slot // array.chunk_rows for slot in touched}):
                sizes[array.key(chunk)] = len(self._encode_row_chunk(array, chunk, catalog, staged) or b"")
        for sharded in self._layout.sharded.values():
            for shard in sorted({slot // shard_slots for slot in touched}):
                sizes[sharded.key(shard)] = self._expected_bytes(catalog, sharded, shard)
        return Measure(sum(sizes.values()), reserve_bytes(sizes, self._layout, shard_slots))

    def stage(self, exemplars: Sequence[Encoded]) -> list[int]:
        """Give slots to exemplars that were admitted; full shards are written at once, but are not committed.

        Parameters
        ----------
        exemplars : sequence of Encoded
            Exemplars.

        Returns
        -------
        list of int
            Their slots.
        """
        slots = self.assign(exemplars)
        if not slots:
            return slots
        self._shard_slots = self.choose_shard_slots(exemplars)
        self.staged.update(zip(slots, exemplars, strict=True))
        self._next_slot = slots[-1] + 1
        last = slots[-1] // self._shard_slots
        for shard in sorted({slot // self._shard_slots for slot, e in self.staged.items() if e.payloads} - {last}):
            self._put_shards(shard)
        return slots

    def commit(self) -> None:
        """Make what is staged durable and visible, all or nothing."""
        if not self.staged:
            return
        catalog = self._merged(self.catalog, self.staged)
        documents = self._documents(catalog, self._shard_slots)
        commit_point = documents.pop(CATALOG_KEY)
        for key, data in documents.items():
            self._put(key, data)
        for shard in sorted({slot // self._shard_slots for slot, e in self.staged.items() if e.payloads}):
            self._put_shards(shard)
        for array in self._layout.rows:
            for chunk in sorted({slot // array.chunk_rows for slot in self.staged}):
                self._replace(array.key(chunk), self._encode_row_chunk(array, chunk, catalog, self.staged))
        for key in self._catalog_chunks(self.staged):
            self._replace(key, catalog.encode_chunk(int(key.split(".")[1])))
        self._put(CATALOG_KEY, commit_point)
        self.catalog = catalog.arranged(shard_slots=self._shard_slots, capacity=self._capacity(catalog))
        self.staged = {}

    def discard(self) -> None:
        """Forget what is staged, shards that were already written included."""
        written = {slot // self._shard_slots for slot, exemplar in self.staged.items() if not exemplar.payloads}
        self.staged = {}
        self._next_slot = self.catalog.num_slots
        self._shard_slots, shard_slots = self.catalog.shard_slots, self._shard_slots
        for shard in sorted(written):
            self._reclaim_shards(shard, shard_slots)

    def evict(self, slots: Iterable[int]) -> None:
        """Evict exemplars: the catalog first (this is the commit), then their bytes are reclaimed.

        Parameters
        ----------
        slots : iterable of int
            Slots that hold an exemplar or are staged.
        """
        gone = sorted(set(slots))
        staged = [slot for slot in gone if slot in self.staged]
        committed = [slot for slot in gone if slot not in self.staged]
        catalog = self.catalog.without(committed)
        for slot in staged:
            del self.staged[slot]
        if committed:
            for key in self._catalog_chunks(committed):
                self._replace(key, catalog.encode_chunk(int(key.split(".")[1])))
            document = self._layout.catalog_document(
                slots=catalog.num_slots,
                generation=catalog.generation,
                shard_slots=catalog.shard_slots,
                capacity=catalog.capacity,
            )
            self._put(CATALOG_KEY, to_bytes(document))
            self.catalog = catalog
            for array in self._layout.rows:
                for chunk in sorted({slot // array.chunk_rows for slot in committed}):
                    self._replace(array.key(chunk), self._encode_row_chunk(array, chunk, catalog, {}))
        for shard in sorted({slot // self._shard_slots for slot in gone}) if self._layout.sharded else []:
            self._reclaim_shards(shard, self._shard_slots)

    def recover(self, *, unclean: bool) -> None:
        """Remove what an interrupted writer left behind, before anything else is done.

        Damage that is met on the way is left where it is: reading the exemplar reports it.

        Parameters
        ----------
        unclean : bool
            Whether the last writer died: then rows of exemplars that are not in the catalog are looked for too.
        """
        for key, size in list(self._objects.sizes.items()):
            if key.rpartition("/")[2].startswith(TEMPORARY):
                self._delete(key)
            for array in self._layout.sharded.values():
                shard = _chunk_number(key, f"{array.path}/c.")
                if shard is not None and size != self._expected_bytes(self.catalog, array, shard):
                    with contextlib.suppress(CorruptExemplarError, StaleSnapshotError):
                        self._reclaim_shard(array, shard, self.catalog.shard_slots)
            chunk = _chunk_number(key, "catalog/c.")
            if chunk is not None and self.catalog.encode_chunk(chunk) is None:
                self._delete(key)
            for rows in self._layout.rows if unclean else []:
                chunk = _chunk_number(key, f"{rows.path}/c.")
                if chunk is not None:
                    with contextlib.suppress(CorruptExemplarError):
                        self._reclaim_rows(rows, chunk)

    def empty_documents(self) -> dict[str, bytes]:
        """Return the metadata of a store without exemplars, the commit point last."""
        return self._documents(self.catalog, 0)

    # What the objects will be -----------------------------------------------------------------------------------

    def _group_bytes(self, exemplar: Encoded) -> int:
        return sum(exemplar.payload_bytes.values()) + CRC_BYTES * len(exemplar.payload_bytes)

    def _bytes_in_group(self, shard: int, shard_slots: int) -> int:
        if not shard_slots:
            return 0
        rows = self.catalog.within(shard * shard_slots, (shard + 1) * shard_slots)
        columns = [self.catalog.column(f"{name}.bytes")[rows] for name in self._layout.sharded]
        committed = sum(int(column.sum()) + CRC_BYTES * int((column > 0).sum()) for column in columns)
        staged = (exemplar for slot, exemplar in self.staged.items() if slot // shard_slots == shard)
        return committed + sum(self._group_bytes(exemplar) for exemplar in staged)

    def _capacity(self, catalog: Catalog) -> int:
        return max(catalog.capacity, _MIN_CAPACITY, 1 << (catalog.num_slots - 1).bit_length())

    def _documents(self, catalog: Catalog, shard_slots: int) -> dict[str, bytes]:
        """Return the metadata objects that have to be put, the commit point last."""
        capacity, documents = self._capacity(catalog), {}
        if (capacity, shard_slots) != (self.catalog.capacity, self.catalog.shard_slots):
            documents.update(self._layout.array_documents(capacity, shard_slots))
        documents[CATALOG_KEY] = self._layout.catalog_document(
            slots=catalog.num_slots, generation=catalog.generation, shard_slots=shard_slots, capacity=capacity
        )
        return {key: to_bytes(document) for key, document in documents.items()}

    def _merged(self, catalog: Catalog, staged: Mapping[int, Encoded]) -> Catalog:
        table = np.array([self._row(exemplar) for exemplar in staged.values()], np.int64)
        num_slots = max([self._next_slot, *(slot + 1 for slot in staged)])
        return catalog.with_rows([*staged], table.reshape(len(staged), len(catalog.columns)), num_slots=num_slots)

    def _row(self, exemplar: Encoded) -> list[int]:
        return [
            exemplar.label,
            int(np.float64(exemplar.priority).view(np.int64)),
            *(exemplar.counts[name] for name in self._layout.schema.modalities),
            *(exemplar.payload_bytes.get(name, 0) for name in self._layout.sharded),
        ]

    def _expected_bytes(self, catalog: Catalog, array: ShardedArray, shard: int) -> int:
        shard_slots = catalog.shard_slots
        rows = catalog.within(shard * shard_slots, (shard + 1) * shard_slots)
        column = catalog.column(f"{array.modality}.bytes")[rows]
        return shard_bytes(int(column.sum()), int((column > 0).sum()), shard_slots)

    def _encode_row_chunk(
        self, array: RowArray, chunk: int, catalog: Catalog, staged: Mapping[int, Encoded]
    ) -> bytes | None:
        first = chunk * array.chunk_rows
        live = catalog.slots[catalog.within(first, first + array.chunk_rows)]
        if len(live) == 0:
            return None
        stored = self._reader.chunk(array, chunk)
        rows = np.zeros_like(stored)
        for slot in live.tolist():
            exemplar = staged.get(slot)
            rows[slot - first] = stored[slot - first] if exemplar is None else exemplar.rows[array.path]
        return encode_rows(rows)

    def _catalog_chunks(self, slots: Iterable[int]) -> list[str]:
        return [catalog_chunk_key(chunk) for chunk in sorted({slot // CATALOG_CHUNK_ROWS for slot in slots})]

    # Putting objects --------------------------------------------------------------------------------------------

    def _put_shards(self, shard: int) -> None:
        """Write the committed and staged payloads of one shard of each modality."""
        for array in self._layout.sharded.values():
            chunks = self._stored_chunks(array, shard, self._shard_slots)
            first = shard * self._shard_slots
            for slot in range(first, first + self._shard_slots):
                exemplar = self.staged.get(slot)
                if exemplar is not None and array.modality in exemplar.payloads:
                    chunks[slot - first] = append_crc(exemplar.payloads[array.modality])
            if chunks:
                self._put(array.key(shard), build_shard(chunks, self._shard_slots))
        for slot in range(shard * self._shard_slots, (shard + 1) * self._shard_slots):
            if slot in self.staged:
                self.staged[slot].payloads.clear()

    def _stored_chunks(self, array: ShardedArray, shard: int, shard_slots: int) -> dict[int, bytes]:
        """Return the chunks of a shard on disk that are still wanted: committed, or staged and already written."""
        first, column = shard * shard_slots, f"{array.modality}.bytes"
        rows = self.catalog.within(first, first + shard_slots)
        sizes = self.catalog.column(column)[rows]
        wanted = self.catalog.slots[rows][sizes > 0].tolist()
        for slot in range(first, first + shard_slots):
            exemplar = self.staged.get(slot)
            if exemplar is not None and not exemplar.payloads and exemplar.payload_bytes.get(array.modality):
                wanted.append(slot)
        return {slot - first: append_crc(self._reader.payload(array, slot, shard_slots)) for slot in wanted}

    def _reclaim_shards(self, shard: int, shard_slots: int) -> None:
        for array in self._layout.sharded.values():
            if array.key(shard) in self._objects.sizes:
                self._reclaim_shard(array, shard, shard_slots)

    def _reclaim_shard(self, array: ShardedArray, shard: int, shard_slots: int) -> None:
        chunks = self._stored_chunks(array, shard, shard_slots)
        key = array.key(shard)
        size = sum(len(chunk) for chunk in chunks.values()) + index_bytes(shard_slots) if chunks else 0
        if size != self._objects.sizes[key]:
            self._replace(key, build_shard(chunks, shard_slots) if chunks else None)

    def _reclaim_rows(self, array: RowArray, chunk: int) -> None:
        """Rewrite a chunk in which a row that is not in the catalog still has a value."""
        first = chunk * array.chunk_rows
        live = self.catalog.slots[self.catalog.within(first, first + array.chunk_rows)]
        dead = np.ones(array.chunk_rows, np.bool_)
        dead[live - first] = False
        if len(live) == 0 or self._reader.chunk(array, chunk)[dead].any():
            self._replace(array.key(chunk), self._encode_row_chunk(array, chunk, self.catalog, {}))

    def _put(self, key: str, data: bytes) -> None:
        self._objects.put(key, data)
        self._reader.forget(key)

    def _delete(self, key: str) -> None:
        self._objects.delete(key)
        self._reader.forget(key)

    def _replace(self, key: str, data: bytes | None) -> None:
        if data is not None:
            self._put(key, data)
        elif key in self._objects.sizes:
            self._delete(key)


def _chunk_number(key: str, prefix: str) -> int | None:
    """Return the first chunk coordinate of a key below `prefix`, None for other keys."""
    if not key.startswith(prefix):
        return None
    number = key[len(prefix) :].split(".")[0]
    return int(number) if number.isdigit() else None
