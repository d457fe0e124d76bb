"""Which exemplars go first when bytes are needed."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["eviction_order"]


def eviction_order(
    labels: NDArray[np.int64], priorities: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Order exemplars for eviction: equal bytes per class, lowest priority first.

    Evicting from the front takes, each time, the lowest priority of the class that uses most bytes. So the largest
    classes shrink to a common level, classes below that level lend what they do not use, and no more is evicted than
    needed. The order does not depend on how much is needed: what remains after a small reduction contains what remains
    after a large one.

    Parameters
    ----------
    labels : ndarray, shape (N,), int64
        Classes.
    priorities : ndarray, shape (N,), float64
        Rank within the class; of equal ones the later in the arrays goes first.
    sizes : ndarray, shape (N,), int64
        Bytes of each exemplar.

    Returns
    -------
    ndarray, shape (N,), int64
        Indices, the first to go first. Classes that use equally much lose the higher label first.

    Notes
    -----
    An exemplar goes when its class still uses the bytes of all better exemplars of the class plus its own. Sorting by
    that sum gives the whole order at once, O(N log N).

    Examples
    --------
    >>> eviction_order(np.array([0, 0, 0, 1]), np.array([3.0, 2.0, 1.0, 0.0]), np.array([10, 10, 10, 15]))
    array([2, 1, 3, 0])
    """
    if len(labels) == 0:
        return np.zeros(0, np.int64)
    best_first = np.lexsort((np.arange(len(labels)), -priorities, labels))
    sums = np.cumsum(sizes[best_first])
    starts = np.flatnonzero(np.diff(labels[best_first], prepend=labels[best_first[0]] - 1))
    before = np.repeat(np.concatenate([[0], sums[starts[1:] - 1]]), np.diff(np.append(starts, len(labels))))
    used_by_class = np.empty(len(labels), np.int64)
    used_by_class[best_first] = sums - before
    rank = np.empty(len(labels), np.int64)
    rank[best_first] = np.arange(len(labels))
    return np.lexsort((-rank, -labels, -used_by_class))
