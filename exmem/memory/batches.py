"""Exemplars out of arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import InvalidExemplarError
from exmem.tokens import Exemplar, TokenSet
from exmem.tokens.checks import array_of, floats_of, mapping_of

__all__ = ["exemplars_of"]


def exemplars_of(
    tokens: Mapping[str, ArrayLike],
    labels: ArrayLike,
    *,
    keep: Mapping[str, ArrayLike] | None,
    priorities: ArrayLike | None,
    extras: Mapping[str, ArrayLike] | None,
) -> list[Exemplar]:
    """Return one exemplar per label; InvalidExemplarError if an array has another first axis or an unknown name."""
    classes = array_of(labels, "labels", error=InvalidExemplarError)
    if classes.ndim != 1 or (classes.dtype.kind not in "iu" and len(classes)):
        raise InvalidExemplarError(f"labels must be a 1-D integer array, got {classes.dtype} of shape {classes.shape}")
    values, flags, fields = _arrays(tokens, "tokens"), _arrays(keep, "keep"), _arrays(extras, "extras")
    ranks = np.zeros(len(classes))
    if priorities is not None:
        ranks = floats_of(priorities, "priorities", error=InvalidExemplarError)
    strange = sorted(set(flags) - set(values))
    if strange:
        raise InvalidExemplarError(f"keep names modalities without tokens: {strange}; tokens has {sorted(values)}")
    for name, array in {**values, **{f"keep of {key}": flag for key, flag in flags.items()}, **fields}.items():
        if array.ndim < 1 or len(array) != len(classes):
            raise InvalidExemplarError(f"{name}: expected {len(classes)} rows (one per label), got shape {array.shape}")
    if ranks.shape != classes.shape:
        raise InvalidExemplarError(f"priorities: expected shape {classes.shape}, got {ranks.shape}")
    return [
        Exemplar(
            {
                name: TokenSet.kept(array[index], flags[name][index]) if name in flags else TokenSet.dense(array[index])
                for name, array in values.items()
            },
            label=int(label),
            priority=float(ranks[index]),
            extras={name: array[index] for name, array in fields.items()},
        )
        for index, label in enumerate(classes.tolist())
    ]


def _arrays(given: Mapping[str, ArrayLike] | None, what: str) -> dict[str, NDArray[Any]]:
    named = {} if given is None else mapping_of(given, what, error=InvalidExemplarError)
    return {name: array_of(array, f"{what} of {name!r}", error=InvalidExemplarError) for name, array in named.items()}
