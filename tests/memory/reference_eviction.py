"""The eviction order in one sort: what the order that is kept up to date must agree with."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from exmem.memory.quota import Quota


def eviction_order(
    labels: NDArray[np.int64], priorities: NDArray[np.float64], sizes: NDArray[np.int64], quota: Quota | None = None
) -> NDArray[np.int64]:
    """An exemplar goes when its class still has the load of all better exemplars of the class plus its own."""
    quota = quota or Quota()
    loads: dict[int, tuple[Fraction, int, int]] = {}
    units: dict[int, int] = {}
    for rank, index in enumerate(np.lexsort((np.arange(len(labels)), -priorities, labels)).tolist()):
        label = int(labels[index])
        units[label] = units.get(label, 0) + (int(sizes[index]) if quota.unit == "bytes" else 1)
        loads[index] = Fraction(units[label]) / Fraction(quota.weights.get(label, 1.0)), label, rank
    return np.array(sorted(loads, key=loads.__getitem__, reverse=True), np.int64)
