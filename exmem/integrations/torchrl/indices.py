"""Indices as TorchRL gives them, and the cursors of the writers that they come from."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["is_one", "plain", "rewind"]


def is_one(cursor: Any) -> bool:
    """Whether an index means one entry, not a batch."""
    return isinstance(cursor, int | np.integer) or (isinstance(cursor, Tensor | np.ndarray) and cursor.ndim == 0)


def plain(index: Any) -> Any:
    """Return an index as NumPy takes it."""
    if isinstance(index, Tensor):
        return index.numpy(force=True)
    if isinstance(index, range | list):
        return np.array(index, np.int64) if not len(index) else np.asarray(index)
    return index


def rewind(attached: Iterable[Any], cursor: Any, held: int) -> None:
    """Put the cursors of writers back to entries that were not written: they moved on before these were refused."""
    if isinstance(cursor, slice | tuple):  # no writer gives these
        return
    given = np.reshape(plain(cursor), -1)
    writers = [each._writer for each in attached if hasattr(getattr(each, "_writer", None), "_cursor")]
    for writer in writers if len(given) else ():
        writer._cursor = min(int(given[0]), held)
        writer._write_count -= len(given)
