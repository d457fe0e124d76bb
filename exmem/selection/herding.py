"""Herding: exemplars whose mean follows the class mean."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.selection.base import checked_count, unit_rows

__all__ = ["herding"]


def herding(features: ArrayLike, *, count: int | None = None) -> NDArray[np.int64]:
    """Order examples of one class so that the mean of each prefix is close to the class mean.

    Parameters
    ----------
    features : array-like or Tensor, shape (N, D), floating
        Features; L2-normalised here. Zero vectors stay zero; NaN is refused.
    count : int, optional
        Length of the order; all N when left out or larger.

    Returns
    -------
    ndarray, shape (count,), int64
        Indices, best first, none twice; ties go to the lower index. A shorter order is a prefix of a longer one.

    Raises
    ------
    InvalidExemplarError
        If `features` is not two-dimensional, one is not finite, or `count` is negative.

    Notes
    -----
    iCaRL (Rebuffi et al. 2017), algorithm 4. O(count N D) time.

    Examples
    --------
    >>> herding(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])).tolist()
    [2, 0, 1]
    """
    rows = unit_rows(features)
    number = checked_count(count, len(rows))
    order = np.empty(number, np.int64)
    if number == 0:
        return order
    mean, taken = rows.mean(axis=0), np.zeros(rows.shape[1])
    left = np.ones(len(rows), np.bool_)
    for rank in range(number):
        distances = np.linalg.norm(mean - (rows + taken) / (rank + 1), axis=1)
        order[rank] = np.argmin(np.where(left, distances, np.inf))
        taken += rows[order[rank]]
        left[order[rank]] = False
    return order
