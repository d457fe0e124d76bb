"""k-centre: examples that leave no other far away."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.selection.base import checked_count, unit_rows

__all__ = ["k_centre"]


def k_centre(features: ArrayLike, *, count: int | None = None) -> NDArray[np.int64]:
    """Order examples of one class so that each is the one farthest from those before it.

    Parameters
    ----------
    features, count
        As for `herding`, like the indices that are returned.

    Notes
    -----
    Gonzalez 1985: the largest distance of an example to its centre is at most twice the best possible, for every
    prefix. The paper starts anywhere; starting with the example closest to the class mean is our choice.
    O(count N D) time.

    Examples
    --------
    >>> k_centre(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.9]])).tolist()
    [2, 0, 1, 3]
    """
    rows = unit_rows(features)
    number = checked_count(count, len(rows))
    order = np.empty(number, np.int64)
    if number == 0:
        return order
    order[0] = np.argmin(np.linalg.norm(rows - rows.mean(axis=0), axis=1))
    gaps = np.full(len(rows), np.inf)  # distance to the nearest example taken; -1 where it is taken itself
    for rank in range(1, number):
        last = order[rank - 1]
        gaps = np.minimum(gaps, np.linalg.norm(rows - rows[last], axis=1))
        gaps[last] = -1.0
        order[rank] = np.argmax(gaps)
    return order
