"""From batches of arrays to what will be stored: as `encode_exemplars`, without a step of Python for each exemplar."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.store.encode import encode_exemplars, encode_payload
from exmem.store.format.chunks import CRC_BYTES
from exmem.store.format.layout import Field, Layout
from exmem.store.segments import Rows
from exmem.store.threads import Threads
from exmem.tokens import PaddedTokens, TokenBatch, TokenSpec
from exmem.tokens.checks import MOST

__all__ = ["encode_batch"]


def encode_batch(batch: TokenBatch, layout: Layout, *, threads: Threads) -> Rows:
    """Validate and encode a batch, without slots yet: the same rows as of its exemplars one by one."""
    if not _is_plain(batch, layout):
        return encode_exemplars([*batch], layout, threads=threads)  # it converts, or says which does not fit and why
    count = len(batch)
    records = np.zeros((count, layout.record_bytes), np.uint8)
    catalog = np.full((count, len(layout.columns)), -1, np.int64)
    catalog[:, 2] = batch.labels
    assert batch.priorities is not None
    catalog[:, 3] = batch.priorities.astype(np.float64).view(np.int64)
    pieces: dict[str, list[bytes]] = {name: [b""] * count for name in layout.sharded}
    for number, (name, spec) in enumerate(layout.schema.modalities.items()):
        tokens = batch.tokens[name]
        catalog[:, layout.first_count + number] = tokens.valid.sum(axis=1)
        _write_column(records, layout.keep[name], np.packbits(_flags(tokens, spec), axis=1, bitorder="little"))
        if name in layout.packed:
            padding = ~tokens.valid.reshape(*tokens.valid.shape, *(1,) * len(spec.shape))
            values = np.where(padding, 0, tokens.values).astype(spec.dtype, copy=False)
            _write_column(records, layout.packed[name], values)
    for name, field in layout.extras.items():
        _write_column(records, field, batch.extras[name])

    def work(indices: Sequence[int]) -> None:
        for name, array in layout.sharded.items():
            tokens = batch.tokens[name]
            counts = tokens.valid.sum(axis=1).tolist()
            for index in indices:
                if counts[index]:
                    values = tokens.values[index, : counts[index]]
                    pieces[name][index] = encode_payload(array.codec, values, f"exemplar {index}, {name!r}")

    if layout.sharded:
        threads.run(work, count)
    for number, name in enumerate(layout.sharded, layout.first_length):
        catalog[:, number] = [max(0, len(piece) - CRC_BYTES) for piece in pieces[name]]
    return Rows(layout, catalog, records, pieces)


def _is_plain(batch: TokenBatch, layout: Layout) -> bool:
    """Whether nothing of a batch has to be converted or refused."""
    schema, priorities = layout.schema, batch.priorities
    if batch.tokens.keys() != schema.modalities.keys() or batch.extras.keys() != schema.extras.keys():
        return False
    if batch.labels.dtype != np.int64 or priorities is None or priorities.dtype.kind != "f":
        return False
    return (
        not np.isnan(priorities).any()
        and all(
            batch.extras[name].dtype.name == field.dtype and batch.extras[name].shape[1:] == field.shape
            for name, field in layout.extras.items()
        )
        and all(_are_plain(batch.tokens[name], spec) for name, spec in schema.modalities.items())
    )


def _are_plain(tokens: PaddedTokens, spec: TokenSpec) -> bool:
    if tokens.values.dtype.name != spec.dtype or tokens.values.shape[2:] != tuple(spec.shape):
        return False
    if tokens.positions.dtype.kind == "u" and tokens.positions.size and int(tokens.positions.max()) > MOST:
        return False
    valid, positions = tokens.valid, tokens.positions
    held = positions[valid]
    rising = (positions[:, 1:] > positions[:, :-1]) | ~valid[:, 1:]
    return bool(rising.all()) and not (held.size and (int(held.min()) < 0 or int(held.max()) >= spec.positions))


def _flags(tokens: PaddedTokens, spec: TokenSpec) -> NDArray[np.bool_]:
    flags = np.zeros((len(tokens.valid), spec.positions), np.bool_)
    rows, columns = np.nonzero(tokens.valid)
    flags[rows, tokens.positions[rows, columns]] = True
    return flags


def _write_column(records: NDArray[np.uint8], field: Field, values: NDArray[Any]) -> None:
    """Write values (B, ...) into a field of the records; of a packed modality possibly fewer than it has places for."""
    if not values.size:
        return
    plain = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)).reshape(len(values), -1)
    data = plain.view(np.uint8)
    records[:, field.start : field.start + data.shape[1]] = data
