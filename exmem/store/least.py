"""What a store takes beside its exemplars: metadata, lock, document and reserve."""

import dataclasses

import numpy as np

from exmem.store.format.layout import Layout
from exmem.store.format.root import Root
from exmem.store.format.state import Era, State
from exmem.store.objects import LOCK_BYTES
from exmem.store.sizes import MOST_LENGTH, exemplar_bytes, least_length, reserve_bytes, rows_for

__all__ = ["beside_segments", "least_budget", "most_rows"]


def least_budget(layout: Layout, root: Root, state: State) -> int:
    """Return the least budget, without charges, in which a store of this state can be without exemplars."""
    return beside_segments(layout, root, state, rows=most_rows(layout, state.target), segments=2)


def most_rows(layout: Layout, target: int) -> int:
    """Return the most rows of a segment of this target: those of exemplars without payloads."""
    smallest = int(exemplar_bytes(layout, np.zeros((1, len(layout.sharded)), np.int64))[0])
    return rows_for(target, smallest, 1)


def beside_segments(layout: Layout, root: Root, state: State, *, rows: int, segments: int) -> int:
    """Return what a store of this state with one era of so many segments of `rows` places takes beside them."""
    empty = dataclasses.replace(state, eras={state.era: Era(rows, least_length(rows, 1))})
    metadata, largest = layout.era_sizes(state.era, rows, MOST_LENGTH)
    document = empty.most_bytes(segments)
    reserve = reserve_bytes(
        layout,
        rows=rows,
        target=state.target,
        document_bytes=document,
        metadata_bytes=max(root.num_bytes, largest),
        growth_bytes=document,
    )
    return metadata + root.num_bytes + LOCK_BYTES + reserve
