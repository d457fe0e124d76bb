"""Random selection: the baseline of every other."""

import numpy as np
from numpy.typing import NDArray

from exmem.selection.base import checked_count

__all__ = ["random_order"]


def random_order(number: int, rng: np.random.Generator, *, count: int | None = None) -> NDArray[np.int64]:
    """Order examples at random; a shorter order is a prefix of a longer one of the same seed.

    Parameters
    ----------
    number : int
        Examples N.
    rng : numpy.random.Generator
        Source of randomness.
    count : int, optional
        Length of the order, 0 or more; all N when left out or larger.
    """
    length = checked_count(count, number)
    return rng.permutation(number)[:length].astype(np.int64)
