"""Ranked by a value that the caller measured: loss, entropy."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.selection.base import checked_count, measured_array

__all__ = ["ranked"]


def ranked(
    values: ArrayLike, *, count: int | None = None, first: Literal["highest", "lowest"] = "highest"
) -> NDArray[np.int64]:
    """Order examples by a value each.

    Parameters
    ----------
    values : array-like or Tensor, shape (N,)
        Such as the loss of each example, or the entropy of its predicted distribution; NaN is refused.
    count : int, optional
        Length of the order; all N when left out or larger.
    first : {"highest", "lowest"}
        Which end is best: hard and uncertain examples, or easy and certain ones.

    Returns
    -------
    ndarray, shape (count,), int64
        Indices, best first, none twice; ties go to the lower index. A shorter order is a prefix of a longer one.

    Raises
    ------
    InvalidExemplarError
        If the values are not one-dimensional, one is NaN, or `count` is negative.
    SchemaError
        If `first` is unknown.

    Notes
    -----
    Highest entropy first: Chaudhry et al. 2018 (Riemannian Walk, entropy-based sampling). High loss kept longer:
    Buzzega et al. 2021 (Rethinking Experience Replay, loss-aware reservoir sampling), there by chance, here by rank.
    That the highest goes first for both is our default; with wrong labels in the data, `lowest` is the safer end.

    Examples
    --------
    >>> ranked([0.2, 1.5, 0.2]).tolist(), ranked([0.2, 1.5, 0.2], first="lowest").tolist()
    ([1, 0, 2], [0, 2, 1])
    """
    measured = measured_array(values, "values").astype(np.float64)
    if measured.ndim != 1 or np.isnan(measured).any():
        raise InvalidExemplarError(f"expected values (N,) without NaN, got shape {measured.shape}")
    if first not in {"highest", "lowest"}:
        raise SchemaError(f"unknown end {first!r}; choose one of ['highest', 'lowest']")
    number = checked_count(count, len(measured))
    order = np.argsort(-measured if first == "highest" else measured, kind="stable")
    return order[:number].astype(np.int64)
