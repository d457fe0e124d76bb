"""Changing a store: stage, commit, evict, discard, recover (format 1, the commit protocol)."""

import contextlib
from collections.abc import Iterable, Sequence

from exmem.errors import CorruptExemplarError, StaleSnapshotError, StoreError
from exmem.store.budgeted import BudgetedObjects
from exmem.store.catalog import Catalog, catalog_chunk_key
from exmem.store.chunks import append_crc, build_shard, index_bytes
from exmem.store.encode import Encoded
from exmem.store.forecast import Forecast
from exmem.store.layout import CATALOG_CHUNK_ROWS, CATALOG_KEY, Layout, RowArray, ShardedArray, chunk_number
from exmem.store.objects import TEMPORARY
from exmem.store.reader import Reader

__all__ = ["Writer"]


class Writer:
    """The only thing that changes a store; the caller has decided before that it fits.

    What is staged stands in the catalog behind what is committed. Full shards and chunks of it are put at once, nothing
    committed refers to them yet; the rest waits in RAM.

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
        self.catalog = catalog
        self.forecast = Forecast(objects, layout, catalog, reader, shard_target_bytes=shard_target_bytes)
        self._waiting = self.forecast.waiting
        self._early: set[int] = set()  # chunks of the catalog that were put before the commit

    @property
    def next_slot(self) -> int:
        """The number the next exemplar gets, or a higher one where a shard is full."""
        return self.forecast.next_slot

    def stage(self, exemplars: Sequence[Encoded]) -> list[int]:
        """Give slots to exemplars that were admitted; full shards and chunks are put at once, but are not committed.

        Parameters
        ----------
        exemplars : sequence of Encoded
            Exemplars.

        Returns
        -------
        list of int
            Their slots.
        """
        forecast = self.forecast
        slots = forecast.assign(exemplars)
        if not slots:
            return slots
        forecast.shard_slots = forecast.choose_shard_slots(exemplars)
        self.catalog.put(slots, forecast.rows(exemplars))
        self._waiting.update(zip(slots, exemplars, strict=True))
        forecast.next_slot, forecast.num_staged = slots[-1] + 1, forecast.num_staged + len(slots)
        try:
            self._put_what_is_full()
        except BaseException:
            with contextlib.suppress(StoreError):
                self.evict(slots)  # they were not added
            raise
        return slots

    def _put_what_is_full(self) -> None:
        forecast, first = self.forecast, min(self._waiting)
        self._put_shards_of(slot for slot in self._waiting if slot // forecast.shard_slots < self._open_shard)
        for array in self._layout.rows:
            for chunk in range(first // array.chunk_rows, forecast.next_slot // array.chunk_rows):
                self._put_rows(array, chunk)
        for chunk in range(first // CATALOG_CHUNK_ROWS, forecast.next_slot // CATALOG_CHUNK_ROWS):
            if chunk not in self._early:
                self._replace(catalog_chunk_key(chunk), self.catalog.encode_chunk(chunk))
                self._early.add(chunk)
        for slot in [slot for slot, exemplar in self._waiting.items() if not (exemplar.payloads or exemplar.rows)]:
            del self._waiting[slot]

    def commit(self) -> None:
        """Make what is staged durable and visible, all or nothing."""
        catalog, forecast = self.catalog, self.forecast
        if not forecast.num_staged:
            return
        capacity = forecast.capacity(forecast.next_slot)
        documents = forecast.documents(forecast.next_slot, forecast.shard_slots)
        commit_point = documents.pop(CATALOG_KEY)
        for key, data in documents.items():
            self._put(key, data)
        self._put_shards_of(self._waiting)
        for array in self._layout.rows:
            for chunk in sorted({slot // array.chunk_rows for slot in self._waiting}):
                self._put_rows(array, chunk)
        # Every chunk from the first new slot on, also where none is live: a crashed commit may have left rows there.
        first, last = catalog.num_slots // CATALOG_CHUNK_ROWS, (forecast.next_slot - 1) // CATALOG_CHUNK_ROWS
        for chunk in range(first, last + 1):
            if chunk not in self._early:
                self._replace(catalog_chunk_key(chunk), catalog.encode_chunk(chunk))
        self._commit(commit_point)
        catalog.num_slots, catalog.generation = forecast.next_slot, catalog.generation + 1
        catalog.shard_slots, catalog.capacity = forecast.shard_slots, capacity
        forecast.num_staged = 0
        self._waiting.clear()
        self._early.clear()

    def discard(self) -> None:
        """Forget what is staged, and remove what of it was already put."""
        catalog, forecast = self.catalog, self.forecast
        staged, _ = catalog.within(catalog.num_slots, forecast.next_slot)
        shard_slots = forecast.shard_slots
        written = [slot for slot in staged.tolist() if slot not in self._waiting or not self._waiting[slot].payloads]
        catalog.remove(staged.tolist())
        rows = [slot for slot in staged.tolist() if slot not in self._waiting or not self._waiting[slot].rows]
        self._waiting.clear()
        forecast.next_slot, forecast.shard_slots = catalog.num_slots, catalog.shard_slots
        forecast.num_staged = 0
        self._drop_early(sorted(self._early))
        self._reclaim(written, rows, shard_slots)

    def evict(self, slots: Iterable[int]) -> None:
        """Evict exemplars: the catalog first (this is the commit), then their bytes are reclaimed.

        Parameters
        ----------
        slots : iterable of int
            Slots that hold an exemplar or are staged.
        """
        catalog = self.catalog
        gone = sorted(set(slots))
        committed = [slot for slot in gone if slot < catalog.num_slots]
        if committed:
            for chunk in sorted({slot // CATALOG_CHUNK_ROWS for slot in committed}):
                data = catalog.encode_chunk(chunk, stop=catalog.num_slots, without=committed)
                self._replace(catalog_chunk_key(chunk), data)
                self._early.discard(chunk)
            self._commit(self.forecast.documents(catalog.num_slots, catalog.shard_slots)[CATALOG_KEY])
            catalog.generation += 1
        catalog.remove(gone)
        self.forecast.num_staged -= len(gone) - len(committed)
        waiting = {slot: self._waiting.pop(slot) for slot in gone if slot in self._waiting}
        self._drop_early([chunk for chunk in {slot // CATALOG_CHUNK_ROWS for slot in gone} if chunk in self._early])
        put = [slot for slot in gone if slot not in waiting or not waiting[slot].payloads]
        rows = [slot for slot in gone if slot not in waiting or not waiting[slot].rows]
        self._reclaim(put, rows, self.forecast.shard_slots)

    def recover(self, *, unclean: bool) -> None:
        """Remove what an interrupted writer left behind, before anything else is done.

        Damage that is met on the way is left where it is: reading the exemplar reports it.

        Parameters
        ----------
        unclean : bool
            Whether the last writer died: then rows of exemplars that are not in the catalog are looked for too.
        """
        catalog = self.catalog
        last = -(-catalog.num_slots // CATALOG_CHUNK_ROWS)
        for key, size in list(self._objects.sizes.items()):
            if key.rpartition("/")[2].startswith(TEMPORARY):
                self._delete(key)
            for array in self._layout.sharded.values():
                shard = chunk_number(key, f"{array.path}/c.")
                if shard is not None and (
                    not catalog.shard_slots or size != self.forecast.shard_bytes(array, shard, catalog.shard_slots)
                ):
                    with contextlib.suppress(CorruptExemplarError, StaleSnapshotError):
                        self._reclaim_shard(array, shard, catalog.shard_slots)
            chunk = chunk_number(key, "catalog/c.")
            if chunk is not None and (chunk >= last or not catalog.holds(chunk)):
                self._delete(key)
            for rows in self._layout.rows if unclean else []:
                chunk = chunk_number(key, f"{rows.path}/c.")
                if chunk is not None:
                    with contextlib.suppress(CorruptExemplarError):
                        self._reclaim_rows(rows, chunk)
        self._objects.flush()

    # Putting objects --------------------------------------------------------------------------------------------

    @property
    def _open_shard(self) -> int:
        return self.forecast.next_slot // self.forecast.shard_slots

    def _put_shards_of(self, slots: Iterable[int]) -> None:
        waiting = [slot for slot in slots if self._waiting[slot].payloads]
        for shard in sorted({slot // self.forecast.shard_slots for slot in waiting}):
            self._put_shards(shard)

    def _put_shards(self, shard: int) -> None:
        """Write the committed and staged payloads of one shard of each modality."""
        shard_slots = self.forecast.shard_slots
        first = shard * shard_slots
        waiting = [slot for slot in range(first, first + shard_slots) if slot in self._waiting]
        for array in self._layout.sharded.values():
            chunks = self._stored_chunks(array, shard, shard_slots)
            for slot in waiting:
                payload = self._waiting[slot].payloads.get(array.modality)
                if payload is not None:
                    chunks[slot - first] = append_crc(payload)
            if chunks:
                self._put(array.key(shard), build_shard(chunks, shard_slots))
        for slot in waiting:
            self._waiting[slot].payloads.clear()

    def _put_rows(self, array: RowArray, chunk: int) -> None:
        """Write the committed and staged rows of one chunk."""
        first = chunk * array.chunk_rows
        waiting = [slot for slot in range(first, first + array.chunk_rows) if slot in self._waiting]
        if any(array.path in self._waiting[slot].rows for slot in waiting):
            self._replace(array.key(chunk), self.forecast.encode_rows(array, chunk))
        for slot in waiting:
            self._waiting[slot].rows.pop(array.path, None)

    def _stored_chunks(self, array: ShardedArray, shard: int, shard_slots: int) -> dict[int, bytes]:
        """Return the chunks of a shard on disk that are still wanted: of exemplars whose payload does not wait."""
        first = shard * shard_slots
        slots, rows = self.catalog.within(first, first + shard_slots)
        sizes = rows[:, self.catalog.columns.index(f"{array.modality}.bytes")]
        wanted = (
            slot
            for slot, size in zip(slots.tolist(), sizes.tolist(), strict=True)
            if size and not (slot in self._waiting and self._waiting[slot].payloads)
        )
        return {slot - first: append_crc(self._reader.payload(array, slot, shard_slots)) for slot in wanted}

    def _reclaim(self, payloads: Sequence[int], rows: Sequence[int], shard_slots: int) -> None:
        """Rewrite or delete what holds bytes of slots that hold no exemplar any more."""
        for array in self._layout.rows:
            for chunk in sorted({slot // array.chunk_rows for slot in rows}):
                self._replace(array.key(chunk), self.forecast.encode_rows(array, chunk, waiting=False))
        for shard in sorted({slot // shard_slots for slot in payloads}) if shard_slots else []:
            for sharded in self._layout.sharded.values():
                if sharded.key(shard) in self._objects.sizes:
                    self._reclaim_shard(sharded, shard, shard_slots)
        self._objects.flush()  # what is put next may need the room

    def _reclaim_shard(self, array: ShardedArray, shard: int, shard_slots: int) -> None:
        chunks = self._stored_chunks(array, shard, shard_slots) if shard_slots else {}
        key = array.key(shard)
        size = sum(len(chunk) for chunk in chunks.values()) + index_bytes(shard_slots) if chunks else 0
        if size != self._objects.sizes[key]:
            self._replace(key, build_shard(chunks, shard_slots) if chunks else None)

    def _reclaim_rows(self, array: RowArray, chunk: int) -> None:
        """Rewrite a chunk in which a row that is not in the catalog still has a value."""
        first = chunk * array.chunk_rows
        dead = self._reader.chunk(array, chunk).copy()
        live, _ = self.catalog.within(first, first + array.chunk_rows)
        dead[live - first] = 0
        if len(live) == 0 or dead.any():
            self._replace(array.key(chunk), self.forecast.encode_rows(array, chunk))

    def _drop_early(self, chunks: Sequence[int]) -> None:
        """Take back chunks of the catalog that were put before the commit; it puts them again."""
        for chunk in chunks:
            self._replace(catalog_chunk_key(chunk), self.catalog.encode_chunk(chunk, stop=self.catalog.num_slots))
            self._early.discard(chunk)

    def _commit(self, document: bytes) -> None:
        """Put the commit point: everything before it is durable first, and it is durable when this returns."""
        self._objects.flush()
        self._put(CATALOG_KEY, document)
        self._objects.flush()

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
