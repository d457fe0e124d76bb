"""How large things are and may be, as functions of numbers alone: segments, the reserve, what an exemplar takes.

A *segment* holds the rows of up to R exemplars, in one chunk of each array. Exemplars share a segment until it has R
rows or their accounted bytes reach the target T; one above T / 2 gets a segment of its own. The reserve is the most
bytes that one step can need before it gives bytes back, so a step that only gives back never fails for bytes.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.store.format.chunks import CRC_BYTES, ENTRY_BYTES, index_bytes, most_row_bytes
from exmem.store.format.layout import Layout
from exmem.tokens.checks import whole_number

__all__ = [
    "MOST_LENGTH",
    "arrange",
    "exemplar_bytes",
    "least_length",
    "noise_bytes",
    "reserve_bytes",
    "rows_for",
    "segment_bytes",
    "target_for",
    "target_of",
]

MOST_LENGTH = 10**14 - 1  # more places than the arrays of an era can get
_LEAST_TARGET, _MOST_TARGET = 2**10, 2**18
_MOST_GIVEN = 2**24  # of a target that is asked for
_MOST_ROWS = 256
_OVERHEAD_BYTES = 64  # of a segment beside its payloads, about: frames, checksums, names in the state


def target_for(budget_bytes: int) -> int:
    """Return the target T of a segment: the power of two nearest to sqrt(64 x budget), 1 KiB to 256 KiB.

    A segment costs the budget T once (the reserve) and about 64 bytes for each T stored; the sum is least there.
    """
    best = math.sqrt(_OVERHEAD_BYTES * max(1, budget_bytes))
    return int(min(max(2 ** round(math.log2(best)), _LEAST_TARGET), _MOST_TARGET))


def target_of(segment_bytes: int) -> int:
    """Return a target that is asked for; SchemaError if it is none."""
    return whole_number(segment_bytes, "segment_bytes", least=_LEAST_TARGET, most=_MOST_GIVEN)


def rows_for(target: int, total_bytes: int, count: int) -> int:
    """Return the rows R of a segment for exemplars of this mean size: a power of two, 1 to 256, R x mean <= T."""
    fitting = target * count // max(1, total_bytes)
    return min(1 << max(0, fitting.bit_length() - 1), _MOST_ROWS)


def exemplar_bytes(layout: Layout, payloads: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what exemplars are accounted with, (N,): payloads (N, sharded), checksums, index entries, plain rows."""
    sizes: NDArray[np.int64] = payloads.sum(axis=1) + CRC_BYTES * (payloads > 0).sum(axis=1)
    return sizes + ENTRY_BYTES * len(layout.sharded) + layout.plain_bytes


def arrange(
    sizes: Sequence[int], *, rows: int, target: int, held_rows: int, held_bytes: int
) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Lay exemplars of these accounted bytes out in segments.

    Returns the indices that go on into the open segment (of `held_rows` and `held_bytes`), those of each new segment in
    order (the last of them stays open), and those that get one of their own.
    """
    joined: list[int] = []
    groups: list[list[int]] = []
    alone: list[list[int]] = []
    current, count, total = joined, held_rows, held_bytes
    for index, size in enumerate(sizes):
        if size > target // 2:
            alone.append([index])
            continue
        if count == rows or total + size > target:
            current, count, total = [], 0, 0
            groups.append(current)
        current.append(index)
        count, total = count + 1, total + size
    return joined, groups, alone


def segment_bytes(layout: Layout, rows: int, plain_rows: int, payload_bytes: int) -> int:
    """Return the most bytes of a segment: its payloads with checksums, indexes, `plain_rows` rows uncompressed."""
    return payload_bytes + len(layout.sharded) * index_bytes(rows) + _row_chunks(layout, plain_rows)


def reserve_bytes(
    layout: Layout, *, rows: int, target: int, document_bytes: int, metadata_bytes: int, growth_bytes: int
) -> int:
    """Return what has to stay free, so that any step that gives bytes back can be taken, and any other after it.

    A segment of shared exemplars is written once more beside everything (T, indexes, frames), or its survivors partly
    into the open segment, whose rows may then compress as badly as they can, and partly into a new one; then the
    document is put, `document_bytes` at most. Or one metadata object of at most `metadata_bytes` is replaced. Beside
    either, document and metadata may grow by `growth_bytes` by and by, and survivors take a little more room elsewhere.
    """
    plain = min(rows * layout.plain_bytes, target)
    moved = target + len(layout.sharded) * index_bytes(rows) + _row_chunks(layout, 0)
    return (
        max(moved + plain + _row_chunks(layout, 0) + document_bytes, metadata_bytes)
        + growth_bytes
        + noise_bytes(target)
    )


def noise_bytes(target: int) -> int:
    """Return what cleaning may take of the reserve until more is cleaned: frames, and rows that compress worse."""
    return target // 8


def least_length(rows: int, segments: int) -> int:
    """Return how many places the arrays of an era need: a power of four times R, so that they seldom grow."""
    length = 16 * rows
    while length < rows * segments:
        length *= 4
    return length


def _row_chunks(layout: Layout, rows: int) -> int:
    return most_row_bytes(8 * len(layout.columns) * rows) + most_row_bytes(layout.record_bytes * rows)
