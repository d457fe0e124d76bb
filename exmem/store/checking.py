"""Looking at every byte of a store, and dropping exactly what is damaged."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CodecError, CorruptExemplarError, StaleSnapshotError
from exmem.store.catalog import Catalog, catalog_chunk_key
from exmem.store.chunks import encode_rows, shard_bytes
from exmem.store.layout import (
    CATALOG_CHUNK_ROWS,
    Layout,
    RowArray,
    ShardedArray,
    to_bytes,
)
from exmem.store.objects import Objects
from exmem.store.reader import Reader

__all__ = ["Damage", "find_damage", "metadata_documents", "needs_row", "rebuilt_rows"]


@dataclasses.dataclass(frozen=True)
class Damage:
    """Something in a store that is not as it was written.

    Parameters
    ----------
    file : str
        Key of the object.
    slots : tuple of int
        Exemplars that cannot be read because of it; empty where only metadata is concerned.
    why : str
        What is wrong.
    """

    file: str
    slots: tuple[int, ...]
    why: str


def metadata_documents(layout: Layout, catalog: Catalog) -> dict[str, bytes]:
    """Return what the metadata of groups and arrays must be; the root and the catalog are not among them.

    Parameters
    ----------
    layout : Layout
        Layout of the store.
    catalog : Catalog
        Its committed state.

    Returns
    -------
    dict of str to bytes
        Key -> content.
    """
    documents = layout.group_documents() | layout.array_documents(catalog.capacity, catalog.shard_slots)
    return {key: to_bytes(document) for key, document in documents.items()}


def find_damage(objects: Objects, layout: Layout, catalog: Catalog, reader: Reader) -> Iterator[Damage]:
    """Read and decode everything.

    Parameters
    ----------
    objects : Objects
        Where the store lies.
    layout : Layout
        Its layout.
    catalog : Catalog
        Its committed state.
    reader : Reader
        Reads it.

    Yields
    ------
    Damage
        What is wrong, file by file.
    """
    sizes = objects.sizes()
    for key, expected in metadata_documents(layout, catalog).items():
        if objects.get(key) != expected:
            yield Damage(key, (), "the metadata is not what it must be")
    for chunk, why in catalog.damaged.items():
        yield Damage(catalog_chunk_key(chunk), tuple(catalog.slots_of(chunk)), why)
    slots = catalog.slots
    known = {catalog_chunk_key(chunk) for chunk in np.unique(slots // CATALOG_CHUNK_ROWS).tolist()}
    for array in layout.rows:
        chunks = np.unique(slots // array.chunk_rows).tolist()
        known |= {array.key(chunk) for chunk in chunks}
        for chunk in chunks:
            yield from _check_rows(array, chunk, layout, catalog, reader)
    for sharded in layout.sharded.values():
        if not catalog.shard_slots:
            continue
        for shard in np.unique(slots // catalog.shard_slots).tolist():
            key = sharded.key(shard)
            known.add(key)
            yield from _check_shard(sharded, shard, catalog, reader, sizes.get(key))
    paths = ["catalog", *(array.path for array in layout.rows), *(array.path for array in layout.sharded.values())]
    chunks_of = tuple(f"{path}/c." for path in paths)
    for key in sizes if not catalog.damaged else ():  # otherwise nobody knows what they belong to
        if key not in known and key.startswith(chunks_of):
            yield Damage(key, (), "no exemplar refers to it")


def _check_rows(array: RowArray, chunk: int, layout: Layout, catalog: Catalog, reader: Reader) -> Iterator[Damage]:
    first = chunk * array.chunk_rows
    live, rows = catalog.within(first, first + array.chunk_rows)
    key = array.key(chunk)
    try:
        stored = reader.chunk(array, chunk, required=True)
    except (CorruptExemplarError, StaleSnapshotError) as error:
        yield Damage(key, tuple(live[needs_row(array, layout, catalog, rows)].tolist()), str(error))
        return
    for name, keep in layout.keep.items():
        if keep.path != array.path:
            continue
        counts = rows[:, catalog.columns.index(f"{name}.tokens")]
        flags = np.unpackbits(stored[live - first], axis=1, bitorder="little")
        wrong = live[(flags.sum(axis=1) != counts) | flags[:, layout.schema.modalities[name].positions :].any(axis=1)]
        wrong = wrong[needs_row(array, layout, catalog, catalog.rows(wrong))]
        if len(wrong):
            yield Damage(key, tuple(wrong.tolist()), "the kept positions are not as many as the catalog says")


def needs_row(array: RowArray, layout: Layout, catalog: Catalog, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which exemplars cannot do without their row: of a modality with no token, or with all, everything is known.

    Parameters
    ----------
    array : RowArray
        The array.
    layout : Layout
        Layout of the store.
    catalog : Catalog
        Names the columns.
    rows : ndarray, shape (N, columns), int64
        What the catalog knows of the exemplars.

    Returns
    -------
    ndarray, shape (N,), bool
        True where the row is needed.
    """
    for name, spec in layout.schema.modalities.items():
        counts = rows[:, catalog.columns.index(f"{name}.tokens")]
        if layout.keep[name].path == array.path:
            return (counts > 0) & (counts < spec.positions)
        if name in layout.packed and layout.packed[name].path == array.path:
            return counts > 0
    return np.ones(len(rows), np.bool_)


def rebuilt_rows(array: RowArray, chunk: int, layout: Layout, catalog: Catalog) -> bytes:
    """Make a chunk of a row array again, out of what the catalog knows; what cannot be known is 0.

    Parameters
    ----------
    array : RowArray
        The array.
    chunk : int
        Number of the chunk.
    layout : Layout
        Layout of the store.
    catalog : Catalog
        The committed state.

    Returns
    -------
    bytes
        The chunk.
    """
    first = chunk * array.chunk_rows
    rows = np.zeros((array.chunk_rows, *array.shape), array.dtype)
    live, known = catalog.within(first, first + array.chunk_rows)
    for name, spec in layout.schema.modalities.items():
        if layout.keep[name].path == array.path:
            full = live[known[:, catalog.columns.index(f"{name}.tokens")] == spec.positions]
            rows[full - first] = np.packbits(np.ones(spec.positions, np.bool_), bitorder="little")
    return encode_rows(rows)


def _check_shard(
    array: ShardedArray, shard: int, catalog: Catalog, reader: Reader, size: int | None
) -> Iterator[Damage]:
    shard_slots, key = catalog.shard_slots, array.key(shard)
    live, rows = catalog.within(shard * shard_slots, (shard + 1) * shard_slots)
    sizes = rows[:, catalog.columns.index(f"{array.modality}.bytes")].tolist()
    counts = rows[:, catalog.columns.index(f"{array.modality}.tokens")].tolist()
    if not any(sizes) and size is not None:
        yield Damage(key, (), "no exemplar refers to it")
    whole = True
    for slot, count, expected in zip(live.tolist(), counts, sizes, strict=True):
        if not expected:
            continue
        try:
            payload = reader.payload(array, slot, shard_slots)
            if len(payload) != expected:
                raise CodecError(f"the payload has {len(payload)} bytes, the catalog says {expected}")
            array.codec.decode_into(payload, np.zeros((count, *array.spec.shape), str(array.spec.dtype)))
        except (CorruptExemplarError, StaleSnapshotError, CodecError) as error:
            whole = False
            yield Damage(key, (slot,), str(error))
    planned = shard_bytes(sum(sizes), sum(held > 0 for held in sizes), shard_slots)
    if whole and any(sizes) and size != planned:
        yield Damage(key, (), f"it has {size} bytes, expected {planned}")
