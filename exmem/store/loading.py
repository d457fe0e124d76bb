"""Reading the committed state: the document, then the catalog chunks of its segments."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CodecError, FormatError
from exmem.store.catalog import Catalog
from exmem.store.format.chunks import most_row_bytes
from exmem.store.format.layout import Layout
from exmem.store.format.state import MOST_STATE_BYTES, STATE_KEY, State, parse_state
from exmem.store.objects import Objects
from exmem.store.segments import parse_catalog
from exmem.store.sizes import exemplar_bytes

__all__ = ["Loaded", "SegmentInfo", "load", "read_state"]

_AT_ONCE = 256  # chunks


@dataclasses.dataclass(frozen=True)
class SegmentInfo:
    """Rows in use of a segment, dead ones too; their accounted bytes, and those of the dead among them."""

    rows: int
    size: int
    dead_rows: int = 0
    dead_size: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """One committed state: the document, the exemplars, and the segments by era << 36 | segment.

    `damaged` are catalog chunks that could not be read; `newer` are slots that were written after a given generation.
    """

    state: State
    catalog: Catalog
    segments: dict[int, SegmentInfo]
    damaged: dict[str, str]
    newer: NDArray[np.int64]


def read_state(objects: Objects) -> tuple[State, bytes]:
    """Return the committed document and its bytes; FormatError when it is missing or damaged."""
    data = objects.get(STATE_KEY, limit=MOST_STATE_BYTES)
    if data is None:
        raise FormatError(f"{objects.location}: {STATE_KEY} is missing")
    return parse_state(data, objects.location), data


def load(objects: Objects, layout: Layout, *, tolerant: bool = False, after: int = -1) -> Loaded:
    """Read a committed state while a writer may go on; FormatError if a catalog chunk is damaged, unless `tolerant`.

    Closed chunks are write-once and the open one only grows, so a document whose chunks are all there is one state. If
    one is missing, the document is read again: what is still live is kept, until nothing changed meanwhile.
    """
    chunks: dict[tuple[int, int], NDArray[np.int64] | str] = {}
    while True:
        state, document = read_state(objects)
        missing = _fetch(objects, layout, state, chunks)
        if not missing:
            break
        if objects.get(STATE_KEY, limit=MOST_STATE_BYTES) == document:
            for era, segment in missing:
                chunks[era, segment] = "it is missing"
            break
    return _put_together(objects, layout, state, chunks, tolerant=tolerant, after=after)


def _fetch(
    objects: Objects, layout: Layout, state: State, chunks: dict[tuple[int, int], NDArray[np.int64] | str]
) -> list[tuple[int, int]]:
    missing = []
    for number, era in state.eras.items():
        opened = (number, era.open)
        wanted = [(number, segment) for segment in era.live.tolist()]
        wanted = [
            name for name in wanted if name not in chunks or (name == opened and len(chunks[name]) < era.open_rows)
        ]
        limit = most_row_bytes(8 * len(layout.columns) * era.rows)
        for start in range(0, len(wanted), _AT_ONCE):
            names = wanted[start : start + _AT_ONCE]
            contents = _get_many(objects, [layout.catalog_key(*name) for name in names], limit)
            for name, data in zip(names, contents, strict=True):
                if data is None:
                    missing.append(name)
                    continue
                if isinstance(data, FormatError):
                    chunks[name] = str(data)
                    continue
                try:
                    chunks[name] = parse_catalog(data, layout, era.rows)
                except CodecError as error:
                    chunks[name] = str(error)
    return missing


def _get_many(objects: Objects, keys: list[str], limit: int) -> list[bytes | FormatError | None]:
    """Return objects, the error in the place of each that is no plain object or too long."""
    try:
        return [*objects.get_many(keys, limit=limit)]
    except FormatError as error:
        return [error] if len(keys) == 1 else [entry for key in keys for entry in _get_many(objects, [key], limit)]


def _put_together(
    objects: Objects,
    layout: Layout,
    state: State,
    chunks: dict[tuple[int, int], NDArray[np.int64] | str],
    *,
    tolerant: bool,
    after: int,
) -> Loaded:
    tables, places, segments = [np.zeros((0, len(layout.columns)), np.int64)], [np.zeros(0, np.int64)], {}
    damaged: dict[str, str] = {}
    for number, era in state.eras.items():
        for segment in era.live.tolist():
            table = chunks[number, segment]
            if segment == era.open and not isinstance(table, str):
                table = table[: era.open_rows] if len(table) >= era.open_rows else "it has too few rows"
            if isinstance(table, str):
                damaged[layout.catalog_key(number, segment)] = table
                continue
            bits, name = era.dead.get(segment, 0), number << 36 | segment
            held = np.array([not bits >> place & 1 for place in range(len(table))], np.bool_)
            sizes = exemplar_bytes(layout, table[:, layout.first_length :])
            dead_size = int(sizes[~held].sum())
            segments[name] = SegmentInfo(len(table), int(sizes.sum()), int((~held).sum()), dead_size)
            tables.append(table[held])
            places.append(name << 8 | np.flatnonzero(held))
    if damaged and not tolerant:
        key, why = next(iter(damaged.items()))
        raise FormatError(
            f"{objects.location}: {len(damaged)} chunks of the catalog are damaged, among them {key} ({why}), and what "
            "they describe cannot be told; look with `exmem check`, then run `exmem repair`"
        )
    table, where = np.concatenate(tables), np.concatenate(places)
    order = np.argsort(table[:, 0], kind="stable")
    table, where = table[order], where[order]
    if (np.diff(table[:, 0]) <= 0).any() or (len(table) and int(table[-1, 0]) >= state.next_slot):
        raise FormatError(f"{objects.location}: the catalog names a slot twice, or one that was never given out")
    catalog = Catalog(layout)
    catalog.append(
        table[:, 0],
        table[:, 2],
        np.ascontiguousarray(table[:, 3]).view(np.float64),
        table[:, layout.first_count : layout.first_length],
        table[:, layout.first_length :],
        where,
    )
    return Loaded(state, catalog, segments, damaged, table[table[:, 1] > after, 0])
