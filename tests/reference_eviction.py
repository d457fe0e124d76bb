"""The eviction order in one sort: what the ledger, which is kept up to date, must agree with."""

import numpy as np
from numpy.typing import NDArray


def eviction_order(
    labels: NDArray[np.int64], priorities: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """An exemplar goes when its class still uses the bytes of all better exemplars of the class plus its own."""
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
