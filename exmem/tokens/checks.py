"""What callers give, looked at once: numbers, arrays, names and plain values, or an error that says what was expected.

Each function returns the value in its plain form; `error` is what it raises.
"""

import json
import math
import numbers
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from exmem.errors import ExmemError, InvalidExemplarError, SchemaError

__all__ = [
    "MOST",
    "array_of",
    "as_array",
    "choice",
    "fitting",
    "flag",
    "floats_of",
    "index_of",
    "label_of",
    "listed",
    "mapping_of",
    "plain_json",
    "real_number",
    "rows_text",
    "shown",
    "whole_number",
]

MOST = 2**63 - 1  # what documents and arrays of a store hold
_MOST_SHOWN = 80  # characters
_MOST_LEVELS = 64  # of plain values within one another (a choice): far below what json reads and writes at any depth
# What NumPy, and tensors that it asks for their values, raise about a value that is no array.
_NO_ARRAY = (TypeError, ValueError, RuntimeError, AttributeError, OverflowError, BufferError)

_Mapping = TypeVar("_Mapping", bound=Mapping[Any, Any])


def shown(value: object) -> str:
    """Return a value as an error shows it, cut at 80 characters."""
    try:
        text = repr(value[: _MOST_SHOWN + 1] if isinstance(value, str | bytes) else value)
    except Exception:  # an integer of 5,000 digits, or a class of the caller's
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def index_of(value: object) -> int | None:
    """Return a whole number as an int, scalars of NumPy and torch too; None for all else, True and False among it."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")) or np.ma.is_masked(value):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except Exception:  # a TypeError as a rule; tensors and classes of the caller's raise what they like
        return None


def whole_number(
    value: object, what: str, *, least: int = 0, most: int = MOST, error: type[ExmemError] = SchemaError
) -> int:
    """Return an integer within `least`..`most`."""
    number = index_of(value)
    if number is None or not least <= number <= most:
        raise error(f"{what} must be an integer of {least}..{most}, got {shown(value)}")
    return number


def label_of(value: object, what: str = "label", *, error: type[ExmemError] = SchemaError) -> int:
    """Return a class as an integer of 64 bits."""
    number = index_of(value)
    if number is None or not -(2**63) <= number <= MOST:
        raise error(f"{what} must be an integer of 64 bits, got {shown(value)}")
    return number


def real_number(value: object, what: str, *, error: type[ExmemError] = SchemaError) -> float:
    """Return a number that is not NaN as a float; text, dates and bools are none."""
    plain = value
    if type(value) is not float and hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        dated = getattr(getattr(value, "dtype", None), "kind", "") in {"m", "M"}  # NumPy makes integers of them
        plain = None if dated or np.ma.is_masked(value) else value.item()
    number = math.nan
    if isinstance(plain, numbers.Real) and not isinstance(plain, bool | np.bool_):
        try:
            number = float(plain)
        except OverflowError:
            number = math.nan
    if math.isnan(number):
        raise error(f"{what} must be a number that is not NaN, got {shown(value)}")
    return number


def array_of(value: object, what: str, *, error: type[ExmemError]) -> NDArray[Any]:
    """Return what NumPy makes of a value; masked entries are refused, and tensors that cannot be converted."""
    if isinstance(value, np.ndarray) and type(value) is np.ndarray:
        return value
    if np.ma.is_masked(value):
        raise error(f"{what}: expected an array, got one with masked entries; fill or leave them out")
    try:
        return np.asarray(value)
    except _NO_ARRAY as problem:
        hint = "; of a tensor give .detach().cpu(), in a dtype that NumPy knows" if hasattr(value, "detach") else ""
        raise error(f"{what}: {type(value).__name__} is no array ({str(problem)[:160]}){hint}") from problem


def as_array(value: Any) -> NDArray[Any]:
    """Return an array of what may be a tensor of any dtype and device, with gradient too; torch is not imported."""
    if not hasattr(value, "detach"):
        return array_of(value, "array", error=InvalidExemplarError)
    tensor = value.detach().cpu()
    try:
        return np.asarray(tensor)
    except TypeError:  # bfloat16 and the like
        return np.asarray(tensor.double())


def floats_of(value: object, what: str, *, error: type[ExmemError]) -> NDArray[np.float64]:
    """Return an array of numbers as float64; text, dates and bools are none, and NaN is refused."""
    given = array_of(value, what, error=error)
    if given.dtype.kind not in "iuf":
        raise error(f"{what}: expected numbers, got {given.dtype} of shape {given.shape}")
    numbers: NDArray[np.float64] = given.astype(np.float64)
    if np.isnan(numbers).any():
        raise error(f"{what}: expected numbers that are not NaN, got NaN")
    return numbers


def fitting(
    value: object, dtype: DTypeLike, shape: Sequence[int], where: str, *, error: type[ExmemError]
) -> NDArray[Any]:
    """Return a value as an array of this dtype and shape; one that the dtype cannot hold is refused."""
    given, wanted = array_of(value, where, error=error), np.dtype(dtype)
    whole = wanted.kind in "iu" and given.dtype.kind in "iu"  # of whole numbers the range decides
    if given.shape != tuple(shape) or not (whole or np.can_cast(given.dtype, wanted, "same_kind")):
        raise error(
            f"{where}: expected {wanted.name} of shape {tuple(shape)}, got {given.dtype} of shape {given.shape}"
        )
    if whole and given.size:
        span = np.iinfo(wanted)
        if int(given.min()) < span.min or int(given.max()) > span.max:
            raise error(
                f"{where}: expected {span.min}..{span.max} ({wanted.name}), got {int(given.min())}..{int(given.max())}"
            )
    with np.errstate(over="ignore"):
        converted = given.astype(wanted)
    if wanted.kind == "f" and (np.isinf(converted) & np.isfinite(given.astype(np.float64))).any():
        raise error(f"{where}: expected at most {np.finfo(wanted).max} ({wanted.name}), got {np.abs(given).max()}")
    return converted


def listed(values: Any, what: str) -> list[Any]:
    """Return a sequence or an array, of one an image, as a list; a text is none."""
    if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not hasattr(values, "__getitem__"):
        raise InvalidExemplarError(f"{what}: expected one an image, got {shown(values)}")
    return [*values]


def mapping_of(value: _Mapping | None, what: str, *, error: type[ExmemError] = SchemaError) -> _Mapping:
    """Return a mapping as it is."""
    if not isinstance(value, Mapping):
        raise error(f"{what}: expected a mapping, got {shown(value)}")
    return value


def flag(value: object, what: str) -> bool:
    """Return True or False; text such as "no", which Python takes for True, is refused."""
    if not isinstance(value, bool | np.bool_):
        raise SchemaError(f"{what} must be True or False, got {shown(value)}")
    return bool(value)


def choice(value: object, what: str, choices: Collection[str], *, error: type[ExmemError] = SchemaError) -> None:
    """Refuse what is none of the names."""
    if not isinstance(value, str) or value not in choices:
        raise error(f"unknown {what} {shown(value)}; choose one of {sorted(choices)}")


def plain_json(value: object, what: str) -> Any:
    """Return a copy of plain JSON values: no NaN, text as keys, no lone surrogates, 64 levels at most."""
    _check_json(value, what, 0)
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
        return json.loads(text)
    except (TypeError, ValueError) as problem:
        raise SchemaError(f"{what}: expected plain JSON values, got {shown(value)} ({problem})") from problem


def _check_json(value: object, what: str, level: int) -> None:
    if level > _MOST_LEVELS:
        raise SchemaError(
            f"{what}: expected values nested at most {_MOST_LEVELS} levels deep; store deeper ones as text"
        )
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise SchemaError(f"{what}: expected text as keys, got {shown(key)}")
            _check_json(entry, what, level + 1)
    elif isinstance(value, list | tuple):
        for entry in value:
            _check_json(entry, what, level + 1)


def rows_text(shape: Sequence[int]) -> str:
    """Return the shape of K values: `(K,)`, `(K, 32, 32, 3)`."""
    return f"(K, {', '.join(map(str, shape))})" if len(shape) else "(K,)"
