"""The catalog: which slots hold an exemplar, and what is known of each without reading it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import CodecError, CorruptExemplarError, FormatError, UnknownSlotError
from exmem.store.chunks import decode_rows, encode_rows
from exmem.store.layout import CATALOG_CHUNK_ROWS, CATALOG_KEY, Layout, chunk_number, unsealed
from exmem.store.objects import Objects

__all__ = ["Catalog", "catalog_chunk_key", "live_slots", "load_catalog"]

_DEAD = -1
_LIVE_COLUMN = 2  # tokens of the first modality: never negative where a slot holds an exemplar
_GROWTH = 1.25


def catalog_chunk_key(chunk: int) -> str:
    """Return the name of the object that holds a chunk of the catalog."""
    return f"catalog/c.{chunk}.0"


class Catalog:
    """What is committed, and behind it (slots from `num_slots` on) what is staged; 8 bytes a column and slot in RAM.

    Rows lie in tables of 1,024 slots, as on the disk; a table without exemplars is given back. So looking up, adding
    and removing take the same time whatever the number of exemplars.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns.
    num_slots : int
        Slots given out by commits; the next exemplar gets this number or a higher one.
    generation : int
        Number of commits and evictions so far.
    shard_slots : int
        Slots of a shard; 0 before the first commit.
    capacity : int
        Rows of the arrays.
    """

    def __init__(
        self, columns: Sequence[str], *, num_slots: int, generation: int, shard_slots: int, capacity: int
    ) -> None:
        self.columns = list(columns)
        self.num_slots = num_slots
        self.generation = generation
        self.shard_slots = shard_slots
        self.capacity = capacity
        self._tables = np.empty((0, CATALOG_CHUNK_ROWS, len(self.columns)), np.int64)
        self._free: list[int] = []  # tables that are not in use
        self._chunks = np.zeros(0, np.int64)  # chunks that have a table, increasing
        self._table_of = np.zeros(0, np.int64)  # their tables
        self._counts: dict[int, int] = {}  # chunk -> live slots
        self._len = 0
        self.damaged: dict[int, str] = {}  # chunk that could not be read -> why
        self.document: bytes | None = None  # the metadata that a snapshot was read with; None for the writer's own

    def __len__(self) -> int:
        return self._len

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots that hold an exemplar, increasing, shape (N,), int64."""
        return self._gather(lambda first, live, table: first + live, np.zeros(0, np.int64))

    def column(self, name: str) -> NDArray[np.int64]:
        """Return a column in the order of `slots`, shape (N,), int64."""
        at = self.columns.index(name)
        return self._gather(lambda first, live, table: table[live, at], np.zeros(0, np.int64))

    @property
    def priorities(self) -> NDArray[np.float64]:
        """Priorities in the order of `slots`, shape (N,), float64."""
        return self.column("priority").view(np.float64)

    def rows(self, slots: ArrayLike) -> NDArray[np.int64]:
        """Return what is known of some slots.

        Parameters
        ----------
        slots : array-like, shape (B,), integer
            Slots to look up.

        Returns
        -------
        ndarray, shape (B, columns), int64
            One row per slot; priorities are the bits of a float64.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar.
        CorruptExemplarError
            If it cannot be told because a chunk of the catalog is damaged.
        """
        wanted = np.asarray(slots)
        if wanted.size == 0:
            return np.zeros((0, len(self.columns)), np.int64)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise UnknownSlotError(f"slots must be a 1-D integer array, got {wanted.dtype} of shape {wanted.shape}")
        chunks, places = np.divmod(wanted.astype(np.int64), CATALOG_CHUNK_ROWS)
        found = np.zeros(len(wanted), np.bool_)
        if len(self._chunks):
            at = np.minimum(np.searchsorted(self._chunks, chunks), len(self._chunks) - 1)
            rows: NDArray[np.int64] = self._tables[self._table_of[at], places]
            found = (self._chunks[at] == chunks) & (rows[:, _LIVE_COLUMN] != _DEAD)
        if not found.all():
            missing = np.unique(wanted[~found])
            for slot in missing[:1].tolist() if self.damaged else []:
                why = self.damaged.get(slot // CATALOG_CHUNK_ROWS)
                if why is not None:
                    key = catalog_chunk_key(slot // CATALOG_CHUNK_ROWS)
                    raise CorruptExemplarError(f"exemplar {slot} is damaged in {key} ({why}); repair the store")
            raise UnknownSlotError(
                f"{len(missing)} of {len(wanted)} slots hold no exemplar (never given out, or evicted): "
                f"{missing[:8].tolist()}; `slots` lists those that do"
            )
        return rows

    def priorities_of(self, slots: ArrayLike) -> NDArray[np.float64]:
        """Return the priorities of some slots, shape (B,), float64."""
        return self.rows(slots)[:, self.columns.index("priority")].copy().view(np.float64)

    def within(self, first: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the slots in `first`..`stop - 1` that hold an exemplar, and their rows."""
        slots, tables = [np.zeros(0, np.int64)], [np.zeros((0, len(self.columns)), np.int64)]
        for chunk in range(first // CATALOG_CHUNK_ROWS, -(-stop // CATALOG_CHUNK_ROWS)):
            table = self._table(chunk)
            if table is None:
                continue
            base = chunk * CATALOG_CHUNK_ROWS
            part = table[max(first - base, 0) : stop - base]
            live = np.flatnonzero(part[:, _LIVE_COLUMN] != _DEAD)
            slots.append(max(first, base) + live)
            tables.append(part[live])
        return np.concatenate(slots), np.concatenate(tables)

    def put(self, slots: Sequence[int], table: NDArray[np.int64]) -> None:
        """Enter exemplars; their slots hold none yet."""
        for slot, row in zip(slots, table, strict=True):
            chunk, place = divmod(slot, CATALOG_CHUNK_ROWS)
            self._make(chunk)[place] = row
            self._counts[chunk] += 1
        self._len += len(slots)

    def remove(self, slots: Sequence[int]) -> None:
        """Remove exemplars; their slots hold one."""
        for slot in slots:
            chunk, place = divmod(slot, CATALOG_CHUNK_ROWS)
            at = int(np.searchsorted(self._chunks, chunk))
            self._tables[self._table_of[at], place] = _DEAD
            self._counts[chunk] -= 1
            if not self._counts[chunk]:
                self._free.append(int(self._table_of[at]))
                self._chunks, self._table_of = np.delete(self._chunks, at), np.delete(self._table_of, at)
                del self._counts[chunk]
        self._len -= len(slots)

    def encode_chunk(
        self,
        chunk: int,
        *,
        stop: int | None = None,
        without: Sequence[int] = (),
        also: Mapping[int, Sequence[int]] | None = None,
    ) -> bytes | None:
        """Return the bytes of one chunk as they would be after a change, None when no slot in it is live.

        Parameters
        ----------
        chunk : int
            Number of the chunk.
        stop : int, optional
            Slots from here on are left out: they are staged.
        without : sequence of int
            Slots that would be removed.
        also : mapping of int to sequence of int
            Slot -> row that would be entered.

        Returns
        -------
        bytes or None
            The chunk.
        """
        first = chunk * CATALOG_CHUNK_ROWS
        known = self._table(chunk)
        table = np.full((CATALOG_CHUNK_ROWS, len(self.columns)), _DEAD, np.int64) if known is None else known.copy()
        if stop is not None:
            table[max(stop - first, 0) :] = _DEAD
        places = np.asarray(without, np.int64) - first
        table[places[(places >= 0) & (places < CATALOG_CHUNK_ROWS)]] = _DEAD
        for slot, row in (also or {}).items():
            if 0 <= slot - first < CATALOG_CHUNK_ROWS:
                table[slot - first] = row
        if (table[:, _LIVE_COLUMN] == _DEAD).all():
            return None
        return encode_rows(table, transposed=True)

    def holds(self, chunk: int) -> bool:
        """Whether a chunk has a live slot."""
        return chunk in self._counts

    def slots_of(self, chunk: int) -> range:
        """Slots that a chunk describes, whether they hold an exemplar or not."""
        first = chunk * CATALOG_CHUNK_ROWS
        return range(first, min(first + CATALOG_CHUNK_ROWS, self.num_slots))

    def load_chunk(self, chunk: int, table: NDArray[np.int64]) -> None:
        """Enter a whole chunk as it was read."""
        count = int(np.count_nonzero(table[:, _LIVE_COLUMN] != _DEAD))
        if count:
            self._make(chunk)[:] = table
            self._counts[chunk] = count
            self._len += count

    def _table(self, chunk: int) -> NDArray[np.int64] | None:
        if chunk not in self._counts:
            return None
        found: NDArray[np.int64] = self._tables[self._table_of[np.searchsorted(self._chunks, chunk)]]
        return found

    def _make(self, chunk: int) -> NDArray[np.int64]:
        table = self._table(chunk)
        if table is not None:
            return table
        if not self._free:
            old = len(self._tables)
            grown = np.empty((int(old * _GROWTH) + 1, *self._tables.shape[1:]), np.int64)  # untouched pages cost no RAM
            grown[:old] = self._tables
            self._tables = grown
            self._free = list(range(len(grown) - 1, old - 1, -1))
        at, table_number = int(np.searchsorted(self._chunks, chunk)), self._free.pop()
        self._chunks = np.insert(self._chunks, at, chunk)
        self._table_of = np.insert(self._table_of, at, table_number)
        self._counts[chunk] = 0
        made: NDArray[np.int64] = self._tables[table_number]
        made[:] = _DEAD
        return made

    def _gather(self, part: Any, none: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([none, *(part(*chunk) for chunk in self._live())])

    def _live(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        for chunk, number in zip(self._chunks.tolist(), self._table_of.tolist(), strict=True):
            table = self._tables[number]
            yield chunk * CATALOG_CHUNK_ROWS, np.flatnonzero(table[:, _LIVE_COLUMN] != _DEAD), table


def live_slots(objects: Objects, columns: int, first: int, stop: int) -> frozenset[int]:
    """Return which slots of a range hold an exemplar now, in the newest committed state or one that is being made.

    Parameters
    ----------
    objects : Objects
        Where the store lies.
    columns : int
        Columns of the catalog.
    first, stop : int
        The range.

    Returns
    -------
    frozenset of int
        Slots. An eviction takes them out before anything of them is reclaimed.
    """
    found: set[int] = set()
    for chunk in range(first // CATALOG_CHUNK_ROWS, -(-stop // CATALOG_CHUNK_ROWS)):
        data = objects.get(catalog_chunk_key(chunk))
        if data is None:
            continue
        with contextlib.suppress(CodecError):  # a damaged chunk: nothing is known to be live
            table = decode_rows(data, (CATALOG_CHUNK_ROWS, columns), "int64", transposed=True)
            live = chunk * CATALOG_CHUNK_ROWS + np.flatnonzero(table[:, _LIVE_COLUMN] != _DEAD)
            found.update(live[(live >= first) & (live < stop)].tolist())
    return frozenset(found)


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
        The committed state; rows beyond it (of an unfinished commit) are ignored, chunks that are damaged are named in
        `damaged`.

    Raises
    ------
    FormatError
        If the metadata of the catalog is missing or damaged.
    """
    data = objects.get(CATALOG_KEY)
    if data is None:
        raise FormatError(f"{objects.location}: {CATALOG_KEY} is missing")
    try:
        document = unsealed(data)
        own = document["attributes"]["exmem"]
        num_slots, columns = int(document["shape"][0]), list(own["columns"])
        arrangement = {name: int(own[name]) for name in ("generation", "shard_slots", "capacity")}
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise FormatError(f"{objects.location}: {CATALOG_KEY} is broken ({type(error).__name__}: {error})") from error
    if columns != layout.columns or min(num_slots, *arrangement.values()) < 0 or arrangement["shard_slots"] > 2**20:
        raise FormatError(f"{objects.location}: {CATALOG_KEY} has columns {columns}, expected {layout.columns}")
    catalog = Catalog(columns, num_slots=num_slots, **arrangement)
    catalog.document = data
    most = layout.most_tokens
    chunks = {}  # those that are there, however many slots the metadata claims
    for key in objects.keys("catalog"):
        chunk = chunk_number(key, "catalog/c.")
        if chunk is not None and key == catalog_chunk_key(chunk) and chunk * CATALOG_CHUNK_ROWS < num_slots:
            chunks[key] = chunk
    for chunk, found in zip(chunks.values(), objects.get_many([*chunks]), strict=True):
        try:
            table = decode_rows(found or b"", (CATALOG_CHUNK_ROWS, len(columns)), "int64", transposed=True)
        except CodecError as error:
            catalog.damaged[chunk] = str(error)
            continue
        table[max(num_slots - chunk * CATALOG_CHUNK_ROWS, 0) :] = _DEAD
        live = table[table[:, _LIVE_COLUMN] != _DEAD]
        if (live[:, _LIVE_COLUMN:] < 0).any() or (live[:, _LIVE_COLUMN : _LIVE_COLUMN + len(most)] > most).any():
            catalog.damaged[chunk] = "it claims sizes that the schema does not allow"
            continue
        catalog.load_chunk(chunk, table)
    return catalog
