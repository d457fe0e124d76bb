"""Closest to the class mean: the most typical examples."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.selection.base import checked_count, unit_rows

__all__ = ["closest_to_mean"]


def closest_to_mean(features: ArrayLike, *, count: int | None = None) -> NDArray[np.int64]:
    """Order examples of one class by their distance to the class mean, the closest first.

    Unlike `herding` it does not look at what was taken before, so the first examples may all be alike.

    Parameters
    ----------
    features, count
        As for `herding`, like the indices that are returned.

    Notes
    -----
    O(N (D + log N)) time.

    Examples
    --------
    >>> closest_to_mean(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.9]])).tolist()
    [2, 3, 0, 1]
    """
    rows = unit_rows(features)
    number = checked_count(count, len(rows))
    if number == 0:
        return np.empty(0, np.int64)
    distances = np.linalg.norm(rows - rows.mean(axis=0), axis=1)
    return np.argsort(distances, kind="stable")[:number].astype(np.int64)
