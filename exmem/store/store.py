"""One open store: objects, layout, committed state, reader and, when it may be changed, writer."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import CorruptExemplarError, InvalidExemplarError, LockedError, StaleSnapshotError, UnknownSlotError
from exmem.store.batches import encode_batch
from exmem.store.catalog import PENDING, Catalog, place_of, segment_of
from exmem.store.encode import encode_exemplars, encode_extra, write_field
from exmem.store.format.layout import Layout, parse_key
from exmem.store.format.root import MOST_ROOT_BYTES, ROOT_KEY, Root, parse_root
from exmem.store.format.state import STATE_KEY, State
from exmem.store.loading import Loaded, load, read_state
from exmem.store.maintenance import Damage, drop_damage, find_damage
from exmem.store.mapped import MovedError
from exmem.store.objects import LOCK_KEY, Objects
from exmem.store.objects.places import Place
from exmem.store.reader import Reader
from exmem.store.segments import Rows
from exmem.store.sizes import exemplar_bytes
from exmem.store.threads import Threads
from exmem.store.writer import Writer
from exmem.tokens import Exemplar, TokenBatch
from exmem.tokens.checks import array_of, floats_of, mapping_of

__all__ = ["Store"]

_MOST_TRIES = 64  # of a read whose exemplars are moved while it looks for them


class Store:
    """An open store: what it holds, read, and written where it is open for that."""

    def __init__(
        self, objects: Objects, layout: Layout, *, root: Root, loaded: Loaded, reader: Reader, threads: Threads
    ) -> None:
        self.location: str = objects.location
        self.place: Place = objects.place
        self.layout = layout
        self.reader = reader
        self.writer: Writer | None = None
        self._objects = objects
        self._threads = threads
        self._root = root
        self._loaded = loaded

    @property
    def books(self) -> Writer | None:
        """The writer with a copy that is right, recovered after an exception if need be; None where there is none."""
        if self.writer is not None and self.writer.dirty and self.writer.is_owner:
            self.writer.ready()
        return self.writer

    @property
    def root(self) -> Root:
        """The metadata of the root."""
        return self._root if (books := self.books) is None else books.root

    @property
    def state(self) -> State:
        """The committed state that this store shows."""
        return self._loaded.state if (books := self.books) is None else books.state

    @property
    def catalog(self) -> Catalog:
        """What is held, staged exemplars included."""
        return self._loaded.catalog if (books := self.books) is None else books.catalog

    @property
    def used_bytes(self) -> int:
        """Sizes of all objects, as they are now."""
        return sum(self._objects.sizes().values()) if (books := self.books) is None else books.used_bytes

    def encode(self, exemplars: Sequence[Exemplar] | TokenBatch) -> Rows:
        """Validate and encode exemplars; see `encode_exemplars`."""
        if isinstance(exemplars, TokenBatch):
            return encode_batch(exemplars, self.layout, threads=self._threads)
        return encode_exemplars(exemplars, self.layout, threads=self._threads)

    def sizes(self, slots: ArrayLike | None = None) -> NDArray[np.int64]:
        """Return the bytes that exemplars are accounted with: of some slots, or of all in the order of `slots`."""
        catalog = self.catalog
        lengths = catalog.lengths if slots is None else catalog.lengths_at(catalog.find(slots))
        return exemplar_bytes(self.layout, lengths)

    def sizes_by_part(self, slots: ArrayLike) -> dict[str, NDArray[np.int64]]:
        """Return the same bytes apart: one entry per modality, `extras`, and `catalog` for what is known of each."""
        layout, lengths = self.layout, self.catalog.lengths_at(self.catalog.find(slots))
        parts = {}
        for name in layout.schema.modalities:
            fixed_bytes = layout.keep[name].num_bytes + (layout.packed[name].num_bytes if name in layout.packed else 0)
            parts[name] = np.full(len(lengths), fixed_bytes, np.int64)
            if name in layout.sharded:
                payload = lengths[:, list(layout.sharded).index(name)]
                parts[name] += payload + np.where(payload > 0, 4, 0) + 16
        if layout.extras:
            parts["extras"] = np.full(len(lengths), sum(field.num_bytes for field in layout.extras.values()), np.int64)
        parts["catalog"] = np.full(len(lengths), 8 * len(layout.columns), np.int64)
        return parts

    def bytes_by_part(self) -> dict[str, int]:
        """Return the sizes of all objects by what they hold."""
        parts = dict.fromkeys([*self.layout.sharded, "catalog", "records", "metadata", "other"], 0)
        for key, size in self._objects.sizes().items():
            parsed = parse_key(key)
            if key in {ROOT_KEY, STATE_KEY, LOCK_KEY} or (parsed is not None and parsed[2] is None):
                part = "metadata"
            else:
                part = parsed[1] if parsed is not None and parsed[1] in parts else "other"
            parts[part] += size
        return parts

    def read(self, slots: ArrayLike) -> TokenBatch:
        """Read exemplars into one padded batch, in the order asked; errors as of `ExemplarMemory.read`."""
        catalog = self.catalog
        rows = catalog.find(slots)
        pending = Rows.none(self.layout) if self.writer is None else self.writer.staged.rows
        self.reader.mapped.fetched = False
        try:
            batch = self.reader.read(catalog, rows, self.state, pending)
            if self.reader.mapped.fetched and self.writer is None:
                self._confirm()
            return batch
        except MovedError as error:
            if self.writer is not None:
                raise self._damage(catalog, rows, self.state, pending, error) from error
        return self._follow(catalog.slots_at(rows))

    def changed_rows(self, slots: ArrayLike, *, priority: ArrayLike | None, extras: Mapping[str, ArrayLike]) -> Rows:
        """Return stored exemplars with other priorities or extras; changes nothing."""
        chosen = self.catalog.slots_at(self.catalog.find(slots))
        if len(np.unique(chosen)) != len(chosen):
            raise UnknownSlotError("expected each slot once, got one twice")
        rows = self.stored_rows(chosen)
        if priority is not None:
            given = floats_of(priority, "priority", error=InvalidExemplarError)
            if given.shape not in {(), chosen.shape}:
                raise InvalidExemplarError(f"expected a priority or {len(chosen)}, one per slot, got {given.shape}")
            rows = rows.with_priorities(np.broadcast_to(given, chosen.shape).copy())
        records = rows.records.copy()
        for name, values in mapping_of(extras, "extras", error=InvalidExemplarError).items():
            field = self.layout.extras.get(name)
            if field is None:
                raise InvalidExemplarError(f"unknown extra field {name!r}; the schema has {sorted(self.layout.extras)}")
            array = array_of(values, f"extra field {name!r}", error=InvalidExemplarError)
            if array.shape[:1] != chosen.shape:
                raise InvalidExemplarError(f"extra field {name!r}: expected {len(chosen)} rows, got {array.shape}")
            for index in range(len(chosen)):
                value = encode_extra(array[index], field, f"exemplar {index}, extra field {name!r}")
                write_field(records[index], field, value)
        return dataclasses.replace(rows, records=records)

    def stored_rows(self, slots: NDArray[np.int64]) -> Rows:
        """Return exemplars as they are stored, staged ones too, in this order."""
        writer = self.writer
        assert writer is not None, "only a writer copies rows"
        where = self.catalog.where_at(self.catalog.find(slots))
        order = np.argsort(where, kind="stable")  # a segment after the other, each read once; what waits comes first
        names, starts = np.unique(segment_of(where[order]), return_index=True)
        groups = []
        for name, chosen in zip(names.tolist(), np.split(order, starts[1:]) if len(names) else [], strict=True):
            if where[chosen[0]] == PENDING:
                waiting = {slot: index for index, slot in enumerate(writer.staged.rows.slots.tolist())}
                groups.append(writer.staged.rows.take([waiting[slot] for slot in slots[chosen].tolist()]))
            else:
                era, segment = divmod(name, 1 << 36)
                groups.append(self.reader.segment(era, segment, self.state, place_of(where[chosen])))
        return Rows.none(self.layout).joined(*groups).take(np.argsort(order))

    def refresh(self) -> None:
        """Show the newest committed state and root; of a writer's store nothing changes."""
        if self.writer is None:
            self._root = parse_root(self._objects.get(ROOT_KEY, limit=MOST_ROOT_BYTES) or b"", self.location)
            newest, known = read_state(self._objects)[0], self.state
            if (newest.store_id, newest.revision) != (known.store_id, known.revision):
                self._loaded = load(self._objects, self.layout)
                self.reader.mapped.clear()

    def check(self) -> Iterator[Damage]:
        """Read and decode everything; see `find_damage`."""
        loaded = self._loaded
        if self.writer is not None:
            self.writer.ready()
            loaded = Loaded(
                self.writer.state, self.writer.catalog, self.writer.segments, self.writer.damaged_chunks, loaded.newer
            )
        staged = {} if self.writer is None else self.writer.staged.segments
        return find_damage(self._objects, self.layout, loaded, self.reader, staged=staged)

    def repair(self) -> tuple[list[Damage], list[int]]:
        """Drop exactly what is damaged; see `drop_damage`."""
        assert self.writer is not None, "only a store that is open for writing is repaired"
        return drop_damage(self._objects, self.layout, self.reader, self.writer)

    def close(self) -> None:
        """Commit what is staged, give the lock back, stop the threads; in a forked child only the last."""
        writer = self.writer
        if writer is not None and writer.is_owner:
            try:
                writer.ready()
                writer.commit()  # where this fails the store stays open, and closing may be tried again
            except LockedError:  # it was taken: this object can commit no more
                self.abandon()
                raise
            self._loaded = dataclasses.replace(self._loaded, state=writer.state, catalog=writer.catalog)
            self._root, self.writer = writer.root, None
            self._objects.release(clean=True)
        self.writer = None
        self.reader.close()

    def abandon(self) -> None:
        """Give the lock back as a writer that died, and stop the threads: the next writer recovers."""
        if self.writer is not None:
            self.writer = None
            self._objects.release(clean=False)
        self.reader.close()

    def _confirm(self) -> None:
        """Be sure that what was fetched is of this store: names are write-once, but a store can be made anew."""
        try:
            newest = read_state(self._objects)[0]
        except BaseException:
            self.reader.mapped.clear()  # nothing is known of what was fetched
            raise
        if newest.store_id != self.state.store_id or newest.revision < self.state.revision:
            self.reader.mapped.clear()
            raise StaleSnapshotError(f"{self.location}: another store was made at this place; open it again")

    def _follow(self, slots: NDArray[np.int64]) -> TokenBatch:
        """Read exemplars where they lie now: they were moved since this snapshot."""
        snapshot, none = self.state, Rows.none(self.layout)
        before = -1
        for _ in range(_MOST_TRIES):
            loaded = load(self._objects, self.layout, after=snapshot.generation)
            if loaded.state.store_id != snapshot.store_id:
                raise StaleSnapshotError(f"{self.location}: another store was made at this place; open it again")
            held = loaded.catalog.holds(slots) & ~np.isin(slots, loaded.newer)
            if not held.all():
                raise StaleSnapshotError(
                    f"{self.location}: exemplars {slots[~held][:8].tolist()} were evicted or updated since this "
                    "snapshot was taken; call refresh()"
                )
            self.reader.mapped.clear()
            rows = loaded.catalog.find(slots)
            try:
                return self.reader.read(loaded.catalog, rows, loaded.state, none)
            except MovedError as error:
                if loaded.state.revision == before:
                    raise self._damage(loaded.catalog, rows, loaded.state, none, error) from error
                before = loaded.state.revision
        raise StaleSnapshotError(f"{self.location} changes faster than it can be read; call refresh()")

    def _damage(
        self, catalog: Catalog, rows: NDArray[np.int64], state: State, pending: Rows, error: MovedError
    ) -> CorruptExemplarError:
        """Return the error that names the exemplar among `rows` that cannot be read."""
        for row in rows.tolist():
            try:
                self.reader.read(catalog, np.array([row]), state, pending)
            except MovedError as damage:
                slot = int(catalog.slots_at(np.array([row]))[0])
                return CorruptExemplarError(f"{self.location}: exemplar {slot} is damaged: {damage}")
        return CorruptExemplarError(f"{self.location}: {error}")
