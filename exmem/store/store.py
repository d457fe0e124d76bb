"""One open store: objects, layout, committed state, reader and, when it may be changed, writer."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from exmem.codecs import get_codec
from exmem.errors import (
    BudgetTooSmallError,
    CodecError,
    FormatError,
    SchemaError,
    StoreExistsError,
    StoreNotFoundError,
)
from exmem.store.budgeted import BudgetedObjects
from exmem.store.catalog import Catalog, load_catalog
from exmem.store.checking import Damage, find_damage
from exmem.store.chunks import CRC_BYTES, ENTRY_BYTES
from exmem.store.encode import Encoded, encode_exemplars
from exmem.store.forecast import Forecast
from exmem.store.layout import LOCK_KEY, Layout, to_bytes, unsealed
from exmem.store.lock import acquire_lock, release_lock
from exmem.store.measure import Measure
from exmem.store.objects import TEMPORARY, LocalObjects, Objects
from exmem.store.reader import Reader
from exmem.store.repairing import drop_damage
from exmem.store.root import ROOT_KEY, Root, check_root, parse_root, root_document
from exmem.store.threads import Threads
from exmem.store.writer import Writer
from exmem.tokens import Exemplar, Schema

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["Place", "Store", "create_store", "open_store"]

Place: TypeAlias = Union[str, "os.PathLike[str]", "ZarrStore"]

_MIN_SHARD_BYTES, _MAX_SHARD_BYTES = 16 * 2**10, 4 * 2**20
_SHARDS_IN_BUDGET = 64
_LOCK_BYTES = 256


class Store:
    """An open store.

    Parameters
    ----------
    objects : Objects
        Where it lies.
    layout : Layout
        Its layout.
    root : Root
        What the metadata of the root says: budget, charges, eviction, quota.
    threads : int, optional
        Threads that encode and decode; the processors of this machine, at most 8, when left out.
    """

    def __init__(self, objects: Objects, layout: Layout, *, root: Root, threads: int | None) -> None:
        self.location = objects.location
        self.layout = layout
        self.root = root
        self._threads = Threads(_num_threads(threads))
        self.reader = Reader(objects, layout, threads=self._threads)
        self.writer: Writer | None = None
        self._objects = objects
        self._budgeted: BudgetedObjects | None = None
        self._snapshot = _empty_catalog(layout)
        self._row_bytes = sum(array.row_bytes for array in layout.rows)

    @property
    def catalog(self) -> Catalog:
        """The committed state that this store shows."""
        return self._snapshot if self.writer is None else self.writer.catalog

    @property
    def next_slot(self) -> int:
        """The number the next exemplar gets, or a higher one."""
        return self.catalog.num_slots if self.writer is None else self.writer.next_slot

    def measure(self) -> Measure:
        """Measure what the objects take, with what is staged."""
        if self.writer is not None:
            return self.writer.forecast.measure([], [])
        held = BudgetedObjects(self._objects, max_bytes=self.root.max_bytes)
        return Forecast(held, self.layout, self.catalog, self.reader, shard_target_bytes=0).measure([], [])

    def encode(self, exemplars: Sequence[Exemplar]) -> list[Encoded]:
        """Validate and encode exemplars; see `encode_exemplars`."""
        return encode_exemplars(exemplars, self.layout, threads=self._threads)

    def sizes(self) -> NDArray[np.int64]:
        """Return the bytes that each exemplar is accounted with, in the order of `catalog.slots`, shape (N,), int64."""
        payloads = [self.catalog.column(f"{name}.bytes") for name in self.layout.sharded]
        return self._sizes(np.array(payloads, np.int64).reshape(len(payloads), len(self.catalog)))

    def sizes_of(self, slots: Sequence[int]) -> NDArray[np.int64]:
        """Return the bytes that some exemplars are accounted with, shape (B,), int64."""
        rows = self.catalog.rows(slots)
        return self._sizes(rows[:, rows.shape[1] - len(self.layout.sharded) :].T)  # the last columns

    def sizes_by_part(self, slots: Sequence[int]) -> dict[str, NDArray[np.int64]]:
        """Return the same bytes apart, one entry per modality and one for `extras`, shape (B,), int64 each."""
        rows, layout = self.catalog.rows(slots), self.layout
        parts = {}
        for name in layout.schema.modalities:
            own = layout.keep[name].row_bytes + (layout.packed[name].row_bytes if name in layout.packed else 0)
            parts[name] = np.full(len(rows), own, np.int64)
            if name in layout.sharded:
                parts[name] += self._with_overhead(rows[:, self.catalog.columns.index(f"{name}.bytes")])
        if layout.extras:
            parts["extras"] = np.full(len(rows), sum(field.row_bytes for field in layout.extras.values()), np.int64)
        return parts

    def exemplar_bytes(self, exemplar: Encoded) -> int:
        """Return the bytes an exemplar is accounted with: payloads, checksums, index entries, rows uncompressed."""
        payloads = exemplar.payload_bytes.values()
        return sum(payloads) + CRC_BYTES * len(payloads) + ENTRY_BYTES * len(self.layout.sharded) + self._row_bytes

    def check(self) -> Iterator[Damage]:
        """Read and decode everything; see `find_damage`."""
        return find_damage(self._objects, self.layout, self.catalog, self.reader)

    def repair(self) -> list[Damage]:
        """Drop exactly what is damaged; see `drop_damage`."""
        if self.writer is None or self._budgeted is None:
            return list(self.check())
        return drop_damage(self._budgeted, self.layout, self.reader, self.writer)

    def growth(self, root: Root) -> int:
        """Return the bytes by which the metadata of the root grows if it is to say something else; 0 if it shrinks."""
        return max(0, len(_root_bytes(root)) - len(_root_bytes(self.root)))

    def put_root(self, root: Root) -> None:
        """Change the budget, the charges or the quota; it was decided before that everything fits."""
        if self._budgeted is None:
            return
        self._budgeted.put(ROOT_KEY, _root_bytes(root))
        self._budgeted.flush()
        self.root, self._budgeted.max_bytes = root, root.max_bytes

    def refresh(self) -> None:
        """Read the committed state, the budget, the charges and the quota again."""
        if self.writer is None:
            self.root = parse_root(self._objects.get(ROOT_KEY) or b"", self.location)
            self._snapshot = load_catalog(self._objects, self.layout)
            self.reader.show(self._snapshot.document)

    def start_writing(self, budgeted: BudgetedObjects, catalog: Catalog) -> Writer:
        """Make this store writable; the lock is held."""
        target = min(max(self.root.max_bytes // _SHARDS_IN_BUDGET, _MIN_SHARD_BYTES), _MAX_SHARD_BYTES)
        self._budgeted = budgeted
        self.writer = Writer(budgeted, self.layout, catalog, self.reader, shard_target_bytes=target)
        return self.writer

    def close(self) -> None:
        """Commit what is staged, give the lock back, stop the threads."""
        if self.writer is not None and self._budgeted is not None:
            self.writer.commit()
            self._snapshot = self.writer.catalog
            self.writer = None
            release_lock(self._budgeted)
        self.reader.close()

    def _sizes(self, payloads: NDArray[np.int64]) -> NDArray[np.int64]:
        sizes: NDArray[np.int64] = self._with_overhead(payloads).sum(axis=0) + self._row_bytes
        return sizes

    @staticmethod
    def _with_overhead(payloads: NDArray[np.int64]) -> NDArray[np.int64]:
        return payloads + np.where(payloads > 0, CRC_BYTES, 0) + ENTRY_BYTES


def create_store(place: Place, root: Root, *, durable: bool, threads: int | None) -> Store:
    """Make an empty store and hold its lock.

    Parameters
    ----------
    place : path or zarr store
        A folder that is missing or empty, or a Zarr store.
    root : Root
        What the metadata of the root is to say.
    durable : bool
        Whether puts are synchronised with the disk.
    threads : int, optional
        Threads that encode and decode; the processors of this machine, at most 8, when left out.

    Returns
    -------
    Store
        The store, open for writing.

    Raises
    ------
    BudgetTooSmallError
        If the budget cannot hold the metadata.
    StoreExistsError
        If something is already there.
    SchemaError
        If the eviction is unknown, or knows no classes although there is a quota for them.
    """
    objects, layout = _objects_at(place, durable=durable), Layout(root.schema)
    check_root(root)
    root_data = _root_bytes(root)
    documents = {key: to_bytes(document) for key, document in layout.group_documents().items()}
    every = [to_bytes(document) for document in layout.array_documents(2**40, 2**10).values()]
    every += [root_data, *documents.values(), to_bytes(_empty_catalog_document(layout))]
    minimum = sum(map(len, every)) + max(map(len, every)) + 2 * _LOCK_BYTES
    if root.max_bytes < minimum:
        raise BudgetTooSmallError(
            f"max_bytes is {root.max_bytes:,}, an empty store of this schema needs {minimum:,} (metadata and the room "
            f"to rewrite it); give at least {minimum:,} and room for exemplars"
        )
    store = Store(objects, layout, root=root, threads=threads)
    found = {key for key in objects.sizes() if not key.rpartition("/")[2].startswith(TEMPORARY)}
    own = {LOCK_KEY, *documents, *layout.array_documents(0, 1), "catalog/zarr.json"}
    if ROOT_KEY in found or found - own:  # what an interrupted create left has no root and is written over
        raise StoreExistsError(
            f"{objects.location} is not empty ({sorted(found)[0]} is there); open it, or choose another place"
        )
    budgeted = BudgetedObjects(objects, max_bytes=root.max_bytes)
    acquire_lock(budgeted)
    try:
        documents.update(store.start_writing(budgeted, _empty_catalog(layout)).forecast.documents(0, 0))
        for key, data in documents.items():
            budgeted.put(key, data)
        budgeted.flush()
        budgeted.put(ROOT_KEY, root_data)  # from here on there is a store
        budgeted.flush()
    except BaseException:
        for key in [*documents, ROOT_KEY]:
            budgeted.delete(key)
        release_lock(budgeted)
        raise
    return _opened(objects, budgeted, threads=threads)


def open_store(
    place: Place,
    *,
    writable: bool,
    durable: bool,
    threads: int | None,
    take_lock: bool = False,
    repairing: bool = False,
) -> Store:
    """Open a store.

    Parameters
    ----------
    place : path or zarr store
        Where it lies.
    writable : bool
        Whether it may be changed.
    durable : bool
        Whether puts are synchronised with the disk.
    threads : int, optional
        Threads that encode and decode; the processors of this machine, at most 8, when left out.
    take_lock : bool
        Whether the lock is taken from whoever holds it, unless that is a living process of this host.
    repairing : bool
        Whether it is opened in spite of damage that no other writer may touch, and of broken metadata of arrays.

    Returns
    -------
    Store
        The store in its last committed state.

    Raises
    ------
    StoreNotFoundError
        If there is none.
    FormatError
        If its format version is unknown or its metadata is broken.
    LockedError
        If another process has it open for writing.
    """
    objects = _objects_at(place, durable=durable)
    root = objects.get(ROOT_KEY)
    if root is None:
        raise StoreNotFoundError(f"{objects.location} holds no exmem store ({ROOT_KEY} is missing); create one first")
    if not writable:
        return _opened(objects, None, threads=threads, tolerant=repairing)
    budgeted = BudgetedObjects(objects, max_bytes=parse_root(root, objects.location).max_bytes)
    unclean = acquire_lock(budgeted, take_lock=take_lock)
    try:
        store = _opened(objects, budgeted, threads=threads, tolerant=repairing)
        if store.catalog.damaged and not repairing:
            raise FormatError(
                f"{objects.location}: {len(store.catalog.damaged)} chunks of the catalog are damaged, and writing "
                "would drop what they describe; look with `exmem check`, then run `exmem repair`"
            )
        if store.writer is not None and not repairing:
            store.writer.recover(unclean=unclean)
    except BaseException:
        release_lock(budgeted, keep=unclean)  # the next writer has to know that the last one died
        raise
    return store


def _opened(
    objects: Objects, budgeted: BudgetedObjects | None, *, threads: int | None, tolerant: bool = False
) -> Store:
    root = parse_root(objects.get(ROOT_KEY) or b"", objects.location)
    layout = _recorded(objects, root.schema, tolerant=tolerant)
    store = Store(objects, layout, root=root, threads=threads)
    if budgeted is None:
        store.refresh()
    else:
        store.start_writing(budgeted, load_catalog(objects, layout))
    return store


def _recorded(objects: Objects, schema: Schema, *, tolerant: bool) -> Layout:
    # The metadata of the arrays is the truth about codecs: it holds JPEG headers and codebooks, the schema does not.
    codecs, modalities = {}, dict(schema.modalities)
    for name, spec in schema.modalities.items():
        key = f"{name}/values/zarr.json"
        data = objects.get(key)
        try:
            if data is None:
                raise ValueError("it is missing")
            outer = unsealed(data)["codecs"][0]
            if outer["name"] != "sharding_indexed":
                continue
            codec = get_codec(outer["configuration"]["codecs"][0]["configuration"]["codec"])
        except (ValueError, KeyError, TypeError, IndexError, CodecError, RecursionError) as error:
            if tolerant:
                continue  # the codec is made from the schema, where that says everything
            raise FormatError(f"{objects.location}: {key} is broken ({type(error).__name__}: {error})") from error
        config = dict(spec.codec) if isinstance(spec.codec, Mapping) else {"id": spec.codec}
        named = str(config["id"])
        if (codec.codec_id.removeprefix("exmem."), codec.shape, codec.dtype) != (
            named.removeprefix("exmem."),
            tuple(spec.shape),
            spec.dtype,
        ):
            raise FormatError(f"{objects.location}: {key} has a codec that does not belong to the schema")
        apart = {option: value for option, value in codec.get_config().items() if option in codec.stored_apart}
        modalities[name] = dataclasses.replace(spec, codec=config | apart)
        codecs[name] = codec
    return Layout(Schema(modalities, schema.extras), codecs)


def _root_bytes(root: Root) -> bytes:
    return to_bytes(root_document(root))


def _empty_catalog(layout: Layout) -> Catalog:
    return Catalog(layout.columns, num_slots=0, generation=0, shard_slots=0, capacity=0)


def _empty_catalog_document(layout: Layout) -> dict[str, object]:
    return layout.catalog_document(slots=2**40, generation=2**40, shard_slots=2**10, capacity=2**40)


def _objects_at(place: Place, *, durable: bool) -> Objects:
    if isinstance(place, str | os.PathLike):
        return LocalObjects(Path(place).expanduser().absolute(), durable=durable)
    from zarr.storage import LocalStore  # here: a path needs no Zarr, whose import takes long

    from exmem.store.zarr_objects import zarr_objects

    if isinstance(place, LocalStore):
        return LocalObjects(Path(place.root), durable=durable)
    return zarr_objects(place)


def _num_threads(threads: int | None) -> int:
    if threads is None:
        return min(8, os.cpu_count() or 1)
    if threads < 1:
        raise SchemaError(f"threads must be 1 or more, got {threads}")
    return threads
