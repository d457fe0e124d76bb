"""Pickles of strangers that hold plain containers and arrays of bytes: nothing else is made, and no code is run."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError

__all__ = ["read_pickle"]


class _Array:
    """Stands in for an array while it is read: what the pickle says of it is checked before an array is made."""

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, data = state
        content = data.encode("latin1") if isinstance(data, str) else data
        if not (isinstance(dtype, _Kind) and isinstance(content, bytes) and isinstance(shape, tuple)):
            raise pickle.UnpicklingError("expected an array of bytes")
        if version != 1 or not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError("expected an array of bytes")
        if math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"expected {math.prod(shape):,} bytes, got {len(content):,}")
        self.value = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Kind:
    """Stands in for the type of an array, which has to be unsigned bytes."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        if name not in {"u1", "|u1", "uint8"}:
            raise pickle.UnpicklingError(f"expected an array of bytes, got {name!r:.40}")

    def __setstate__(self, state: Any) -> None:
        """Nothing more is to be known of bytes."""


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("expected bytes in latin1")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Kind,
    ("numpy", "ndarray"): None,
    ("_codecs", "encode"): _encoded,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


class _Reader(pickle._Unpickler):  # in Python, whose memory grows with what is there and not with what a number says
    """Makes plain containers, and of all other things those that are known."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands in for a thing; UnpicklingError for whatever else is named."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain data")
        return _KNOWN[module, name]


def read_pickle(path: Path) -> Any:
    """Read a pickle of containers and byte arrays; DataError for whatever else it holds."""
    try:
        with path.open("rb") as file:
            return _plain(_Reader(file, encoding="latin1").load())
    except (
        Exception
    ) as error:  # damaged bytes lead an unpickler to anything, MemoryError too: lengths are written there
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"{path}: expected a pickle of plain data, got another ({reason}); take it from its source"
        ) from error


def _plain(value: Any, depth: int = 4) -> Any:
    """Return a value with arrays in the place of what stood in for them; deeper ones are none of ours."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict) and depth:
        return {key: _plain(held, depth - 1) for key, held in value.items()}
    return value
