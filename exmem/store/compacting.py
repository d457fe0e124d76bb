"""Exemplars out of a store as they were encoded, for another store."""

from collections.abc import Iterator, Sequence

from exmem.store.encode import Encoded
from exmem.store.store import Store

__all__ = ["encoded_batches"]

_BATCH = 64


def encoded_batches(store: Store) -> Iterator[list[Encoded]]:
    """Read all exemplars without decoding them.

    Parameters
    ----------
    store : Store
        The store.

    Yields
    ------
    list of Encoded
        Some exemplars, in the order of their slots: payloads bit for bit as they were encoded.
    """
    slots = store.catalog.slots.tolist()
    for start in range(0, len(slots), _BATCH):
        yield _read(store, slots[start : start + _BATCH])


def _read(store: Store, slots: Sequence[int]) -> list[Encoded]:
    layout, reader, catalog = store.layout, store.reader, store.catalog
    rows, priorities = catalog.rows(slots), catalog.priorities_of(slots)
    column = {name: rows[:, at].tolist() for at, name in enumerate(catalog.columns)}
    found = []
    for at, slot in enumerate(slots):
        payloads = {
            name: reader.payload(array, slot, catalog.shard_slots)
            for name, array in layout.sharded.items()
            if column[f"{name}.bytes"][at]
        }
        stored = {
            array.path: reader.chunk(array, slot // array.chunk_rows, required=True)[slot % array.chunk_rows].copy()
            for array in layout.rows
        }
        found.append(
            Encoded(
                label=column["label"][at],
                priority=float(priorities[at]),
                counts={name: column[f"{name}.tokens"][at] for name in layout.schema.modalities},
                payloads=payloads,
                payload_bytes={name: len(payload) for name, payload in payloads.items()},
                rows=stored,
            )
        )
    return found
