"""From exemplars to what will be stored: validated once, here, and encoded."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CodecError, InvalidExemplarError
from exmem.store.layout import Layout
from exmem.store.threads import Threads
from exmem.tokens import Exemplar, TokenSet, TokenSpec

__all__ = ["Encoded", "encode_exemplars"]

_INT64 = range(-(2**63), 2**63)


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """An exemplar as it will be stored.

    Parameters
    ----------
    label : int
        Class.
    priority : float
        Rank within the class.
    counts : mapping of str to int
        Kept tokens K of each modality.
    payloads : mapping of str to bytes
        Encoded values of each sharded modality that has tokens; emptied once they are put.
    payload_bytes : mapping of str to int
        Size of each payload.
    rows : mapping of str to ndarray
        Path of each row array -> the exemplar's row; emptied once they are put.
    """

    label: int
    priority: float
    counts: Mapping[str, int]
    payloads: dict[str, bytes]
    payload_bytes: Mapping[str, int]
    rows: dict[str, NDArray[Any]]


def encode_exemplars(exemplars: Sequence[Exemplar], layout: Layout, *, threads: Threads) -> list[Encoded]:
    """Validate and encode exemplars; nothing is stored.

    Parameters
    ----------
    exemplars : sequence of Exemplar
        Exemplars.
    layout : Layout
        Layout of the store.
    threads : Threads
        Threads that encode.

    Returns
    -------
    list of Encoded
        One per exemplar, in order.

    Raises
    ------
    InvalidExemplarError
        If one does not fit the schema; the message says which and why.
    """
    for index, exemplar in enumerate(exemplars):
        _check(index, exemplar, layout)
    found: dict[int, Encoded] = {}

    def work(part: Sequence[int]) -> None:
        for index in part:
            found[index] = _encode(index, exemplars[index], layout)

    threads.run(work, len(exemplars))
    return [found[index] for index in range(len(exemplars))]


def _check(index: int, exemplar: Exemplar, layout: Layout) -> None:
    schema = layout.schema
    if not isinstance(exemplar, Exemplar):
        raise InvalidExemplarError(f"exemplar {index}: expected an Exemplar, got {type(exemplar).__name__}")
    _check_names(index, "modalities", exemplar.tokens, schema.modalities)
    _check_names(index, "extra fields", exemplar.extras, schema.extras)
    if isinstance(exemplar.label, bool) or not isinstance(exemplar.label, int | np.integer):
        raise InvalidExemplarError(f"exemplar {index}: label must be an integer, got {exemplar.label!r}")
    if int(exemplar.label) not in _INT64:
        raise InvalidExemplarError(f"exemplar {index}: label {exemplar.label} does not fit 64 bits")
    try:
        bad_priority = math.isnan(float(exemplar.priority))
    except (TypeError, ValueError):
        bad_priority = True
    if bad_priority:
        raise InvalidExemplarError(
            f"exemplar {index}: priority must be a number that is not NaN, got {exemplar.priority!r}"
        )
    for name, spec in schema.modalities.items():
        _check_tokens(f"exemplar {index}, {name!r}", exemplar.tokens[name], spec)
    for name, field in schema.extras.items():
        values = np.asarray(exemplar.extras[name])
        if values.shape != tuple(field.shape) or not np.can_cast(values.dtype, str(field.dtype), "same_kind"):
            raise InvalidExemplarError(
                f"exemplar {index}, extra field {name!r}: expected {field.dtype} of shape {tuple(field.shape)}, "
                f"got {values.dtype} of shape {values.shape}"
            )


def _check_names(index: int, what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if set(found) != set(wanted):
        raise InvalidExemplarError(
            f"exemplar {index}: expected the {what} {sorted(wanted)}, got {sorted(found)}; "
            "give each one that the schema names (an empty TokenSet for a modality without tokens) and no other"
        )


def _check_tokens(where: str, tokens: TokenSet, spec: TokenSpec) -> None:
    if not isinstance(tokens, TokenSet):
        raise InvalidExemplarError(f"{where}: expected a TokenSet, got {type(tokens).__name__}")
    if len(tokens) and int(tokens.positions[-1]) >= spec.positions:
        raise InvalidExemplarError(f"{where}: position {tokens.positions[-1]} is outside 0..{spec.positions - 1}")
    values = tokens.values
    if values.shape[1:] != tuple(spec.shape) or values.dtype.name != spec.dtype:
        raise InvalidExemplarError(
            f"{where}: expected values (K, *{tuple(spec.shape)}) of {spec.dtype}, "
            f"got {values.shape} of {values.dtype}; convert them before adding"
        )


def _encode(index: int, exemplar: Exemplar, layout: Layout) -> Encoded:
    payloads: dict[str, bytes] = {}
    rows: dict[str, NDArray[Any]] = {}
    for name, spec in layout.schema.modalities.items():
        tokens = exemplar.tokens[name]
        flags = np.zeros(spec.positions, np.bool_)
        flags[tokens.positions] = True
        rows[layout.keep[name].path] = np.packbits(flags, bitorder="little")
        if name in layout.packed:
            row = np.zeros((spec.positions, *spec.shape), str(spec.dtype))
            row[: len(tokens)] = tokens.values
            rows[layout.packed[name].path] = row
        elif len(tokens):
            try:
                payloads[name] = layout.sharded[name].codec.encode(tokens.values)
            except CodecError as error:
                raise InvalidExemplarError(f"exemplar {index}, {name!r}: {error}") from error
    for name, array in layout.extras.items():
        rows[array.path] = np.asarray(exemplar.extras[name]).astype(array.dtype)
    return Encoded(
        label=int(exemplar.label),
        priority=float(exemplar.priority),
        counts={name: len(tokens) for name, tokens in exemplar.tokens.items()},
        payloads=payloads,
        payload_bytes={name: len(payload) for name, payload in payloads.items()},
        rows=rows,
    )
