"""Rate-aware allocation: which option of each item buys the most within a budget of bytes."""

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError

__all__ = ["allocate"]

_HALVINGS = 64  # of the multiplier's range; what it leaves is found by the filling


def allocate(values: NDArray[np.float64], sizes: NDArray[np.float64], max_bytes: float) -> NDArray[np.int64]:
    """Choose one option of each item for the most value within a budget; never over it.

    Items are what is decided apart: patches, words, whole modalities. Their options are the ways of storing them, such
    as scales and qualities. Sizes are taken to add up; where a codec makes them depend on each other, measure the
    result and correct the budget.

    Parameters
    ----------
    values : ndarray, shape (I, O), float
        What each option of each item is worth, at least 0; option 0 drops the item and is worth 0.
    sizes : ndarray, shape (I, O), float
        Bytes of each option, at least 0; option 0 takes none. An item with fewer options repeats one of them.
    max_bytes : float
        The budget, at least 0.

    Returns
    -------
    ndarray, shape (I,), int64
        Chosen option of each item. The sum of their values is short of the best possible one by less than the most
        valuable single option.

    Raises
    ------
    InvalidExemplarError
        If shapes differ, a number is negative or not finite, or option 0 is not free and worthless.

    Notes
    -----
    Shoham & Gersho 1988, "Efficient Bit Allocation for an Arbitrary Set of Quantizers": each item takes the option of
    largest value - multiplier * size, and the multiplier is the smallest that keeps to the budget, found by bisection.
    That is the best choice for the bytes that it takes. What is left is filled greedily: the step of an item to another
    option that fits and gains most per byte, until none does. O(64 I O) time, and O(I O) per step of the filling.

    Examples
    --------
    >>> allocate(np.array([[0, 5, 6], [0, 3, 8]]), np.array([[0, 10, 20], [0, 10, 20]]), 30)
    array([1, 2])
    """
    values, sizes = np.asarray(values, np.float64), np.asarray(sizes, np.float64)
    _check(values, sizes, max_bytes)
    items = np.arange(len(values))

    def best(multiplier: float) -> NDArray[np.int64]:
        net = values - multiplier * sizes
        ties = net >= net.max(axis=1, keepdims=True)
        chosen: NDArray[np.int64] = np.where(ties, sizes, np.inf).argmin(axis=1)
        return chosen

    def fits(choice: NDArray[np.int64]) -> bool:
        return bool(sizes[items, choice].sum() <= max_bytes)

    if fits(best(0)):
        return best(0)
    ratios = np.divide(values, sizes, out=np.zeros_like(values), where=sizes > 0)
    low, high = 0.0, 2 * float(ratios.max())  # at twice the best value per byte nothing that costs is worth it
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(best(middle)) else (middle, high)
    return _fill(best(high), values, sizes, max_bytes)


def _fill(
    choice: NDArray[np.int64], values: NDArray[np.float64], sizes: NDArray[np.float64], max_bytes: float
) -> NDArray[np.int64]:
    """Take the steps that gain most per byte, one by one, while there is one that fits."""
    items = np.arange(len(values))[:, None]
    while True:
        gains, costs = values - values[items, choice[:, None]], sizes - sizes[items, choice[:, None]]
        left = max_bytes - sizes[items[:, 0], choice].sum()
        possible = (gains > 0) & (costs <= left)
        if not possible.any():
            return choice
        # A gain that costs nothing is taken first.
        slopes = np.divide(gains, costs, out=np.full_like(gains, np.inf), where=costs > 0)
        item, option = np.unravel_index(np.where(possible, slopes, -np.inf).argmax(), slopes.shape)
        choice[item] = option


def _check(values: NDArray[np.float64], sizes: NDArray[np.float64], max_bytes: float) -> None:
    if values.ndim != 2 or values.shape != sizes.shape or not values.shape[1]:
        raise InvalidExemplarError(
            f"expected values and sizes (I, O) with O >= 1, got {values.shape} and {sizes.shape}"
        )
    for name, numbers in (("values", values), ("sizes", sizes), ("max_bytes", np.asarray(max_bytes))):
        if not np.isfinite(numbers).all() or (numbers < 0).any():
            raise InvalidExemplarError(f"{name}: expected finite numbers of at least 0")
    if values[:, 0].any() or sizes[:, 0].any():
        raise InvalidExemplarError("option 0 drops an item: expected value 0 and 0 bytes")
