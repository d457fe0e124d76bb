"""The catalog: which slots hold an exemplar, and what is known of each without reading it."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import CodecError, FormatError, UnknownSlotError
from exmem.store.chunks import decode_rows, encode_rows
from exmem.store.layout import CATALOG_CHUNK_ROWS, CATALOG_KEY, Layout
from exmem.store.objects import Objects

__all__ = ["Catalog", "catalog_chunk_key", "load_catalog"]

_DEAD = -1


def catalog_chunk_key(chunk: int) -> str:
    """Return the name of the object that holds a chunk of the catalog."""
    return f"catalog/c.{chunk}.0"


class Catalog:
    """One committed state, in RAM; changing it means making another one.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns.
    slots : ndarray, shape (N,), int64
        Slots that hold an exemplar, increasing.
    table : ndarray, shape (N, columns), int64
        One row per live slot; priorities are the bits of a float64.
    num_slots : int
        Slots given out so far; the next exemplar gets this number or a higher one.
    generation : int
        Number of commits and evictions so far.
    shard_slots : int
        Slots of a shard; 0 before the first commit.
    capacity : int
        Rows of the arrays.
    """

    def __init__(
        self,
        columns: Sequence[str],
        slots: NDArray[np.int64],
        table: NDArray[np.int64],
        *,
        num_slots: int,
        generation: int,
        shard_slots: int,
        capacity: int,
    ) -> None:
        self.columns = list(columns)
        self.slots = slots
        self.table = table
        self.num_slots = num_slots
        self.generation = generation
        self.shard_slots = shard_slots
        self.capacity = capacity

    def __len__(self) -> int:
        return len(self.slots)

    def column(self, name: str) -> NDArray[np.int64]:
        """Return a column, shape (N,), int64."""
        return self.table[:, self.columns.index(name)]

    @property
    def priorities(self) -> NDArray[np.float64]:
        """Priorities, shape (N,), float64."""
        return np.ascontiguousarray(self.column("priority")).view(np.float64)

    def find(self, slots: ArrayLike) -> NDArray[np.int64]:
        """Return the row of each slot.

        Parameters
        ----------
        slots : array-like, shape (B,), integer
            Slots to look up.

        Returns
        -------
        ndarray, shape (B,), int64
            Rows of the table.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar.
        """
        wanted = np.asarray(slots)
        if wanted.size == 0:
            return np.zeros(0, np.int64)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise UnknownSlotError(f"slots must be a 1-D integer array, got {wanted.dtype} of shape {wanted.shape}")
        rows = np.searchsorted(self.slots, wanted)
        found = rows < len(self.slots)
        found[found] = self.slots[rows[found]] == wanted[found]
        if not found.all():
            missing = np.unique(wanted[~found])
            raise UnknownSlotError(
                f"{len(missing)} of {len(wanted)} slots hold no exemplar (never given out, or evicted): "
                f"{missing[:8].tolist()}; `slots` lists those that do"
            )
        return rows.astype(np.int64)

    def within(self, first: int, stop: int) -> slice:
        """Return the rows whose slots are in `first`..`stop - 1`."""
        start, end = np.searchsorted(self.slots, [first, stop])
        return slice(int(start), int(end))

    def without(self, slots: Iterable[int]) -> "Catalog":
        """Return the catalog after an eviction."""
        rows = self.find(np.fromiter(slots, np.int64))
        return self._changed(np.delete(self.slots, rows), np.delete(self.table, rows, axis=0), self.num_slots)

    def with_rows(self, slots: Sequence[int], table: NDArray[np.int64], *, num_slots: int) -> "Catalog":
        """Return the catalog after an add; `slots` are increasing and above all that are there."""
        return self._changed(
            np.concatenate([self.slots, np.asarray(slots, np.int64)]), np.concatenate([self.table, table]), num_slots
        )

    def arranged(self, *, shard_slots: int, capacity: int) -> "Catalog":
        """Return the catalog with another arrangement of the arrays."""
        changed = self._changed(self.slots, self.table, self.num_slots)
        changed.generation, changed.shard_slots, changed.capacity = self.generation, shard_slots, capacity
        return changed

    def encode_chunk(self, chunk: int) -> bytes | None:
        """Return the bytes of one chunk, None when no slot in it is live."""
        first = chunk * CATALOG_CHUNK_ROWS
        rows = self.within(first, first + CATALOG_CHUNK_ROWS)
        if rows.start == rows.stop:
            return None
        table = np.full((CATALOG_CHUNK_ROWS, len(self.columns)), _DEAD, np.int64)
        table[self.slots[rows] - first] = self.table[rows]
        return encode_rows(table, transposed=True)

    def _changed(self, slots: NDArray[np.int64], table: NDArray[np.int64], num_slots: int) -> "Catalog":
        return Catalog(
            self.columns,
            slots,
            table,
            num_slots=num_slots,
            generation=self.generation + 1,
            shard_slots=self.shard_slots,
            capacity=self.capacity,
        )


def load_catalog(objects: Objects, layout: Layout) -> Catalog:
    """Read the committed state.

    Parameters
    ----------
    objects : Objects
        Where the store lies.
    layout : Layout
        Its layout.

    Returns
    -------
    Catalog
        The committed state; rows beyond it (of an unfinished commit) are ignored.

    Raises
    ------
    FormatError
        If the catalog is missing or damaged.
    """
    data = objects.get(CATALOG_KEY)
    if data is None:
        raise FormatError(f"{objects.location}: {CATALOG_KEY} is missing")
    try:
        document: dict[str, Any] = json.loads(data)
        own = document["attributes"]["exmem"]
        num_slots, columns = int(document["shape"][0]), list(own["columns"])
        arrangement = {name: int(own[name]) for name in ("generation", "shard_slots", "capacity")}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(f"{objects.location}: {CATALOG_KEY} is broken ({type(error).__name__}: {error})") from error
    if columns != layout.columns or min(num_slots, *arrangement.values()) < 0:
        raise FormatError(f"{objects.location}: {CATALOG_KEY} has columns {columns}, expected {layout.columns}")
    slots, tables = [np.zeros(0, np.int64)], [np.zeros((0, len(columns)), np.int64)]
    for chunk in range(-(-num_slots // CATALOG_CHUNK_ROWS)):
        found = objects.get(catalog_chunk_key(chunk))
        if found is None:
            continue
        try:
            table = decode_rows(found, (CATALOG_CHUNK_ROWS, len(columns)), "int64", transposed=True)
        except CodecError as error:
            raise FormatError(f"{objects.location}: {catalog_chunk_key(chunk)} is damaged ({error})") from error
        first = chunk * CATALOG_CHUNK_ROWS
        live = np.flatnonzero(table[: num_slots - first, 2] != _DEAD)  # column 2: tokens of the first modality
        slots.append(first + live)
        tables.append(table[live])
    return Catalog(columns, np.concatenate(slots), np.concatenate(tables), num_slots=num_slots, **arrangement)
