"""Exemplars out of arrays."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from exmem.errors import InvalidExemplarError
from exmem.tokens import Exemplar, TokenSet

__all__ = ["exemplars_of"]


def exemplars_of(
    tokens: Mapping[str, ArrayLike],
    labels: ArrayLike,
    *,
    keep: Mapping[str, ArrayLike],
    priorities: ArrayLike | None,
    extras: Mapping[str, ArrayLike],
) -> list[Exemplar]:
    """Return one exemplar per label; InvalidExemplarError if an array has another first axis or an unknown name."""
    classes = np.asarray(labels)
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise InvalidExemplarError(f"labels must be a 1-D integer array, got {classes.dtype} of shape {classes.shape}")
    values = {name: np.asarray(array) for name, array in tokens.items()}
    flags = {name: np.asarray(array) for name, array in keep.items()}
    fields = {name: np.asarray(array) for name, array in extras.items()}
    ranks = np.zeros(len(classes)) if priorities is None else np.asarray(priorities, np.float64)
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
