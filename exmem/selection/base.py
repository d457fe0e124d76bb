"""What every selection rule shares: what it goes by, and checks of what it is given."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.tokens.checks import as_array, whole_number

__all__ = ["Selection", "checked_count", "unit_rows"]


@dataclasses.dataclass(frozen=True)
class Selection:
    """A rule that orders the examples of one class, best first.

    Every rule is prefix-nested: the order of `count` examples is the front of the order of all, so that evicting from
    the end leaves the smaller selection. No index comes twice; ties go to the lower one.

    Parameters
    ----------
    order : callable
        Makes the order out of what the rule goes by, and a keyword `count`.
    needs : {"features", "values", "rng"}
        What it goes by: nothing else has to be measured for it.
    """

    order: Callable[..., NDArray[np.int64]]
    needs: Literal["features", "values", "rng"]

    def __call__(
        self,
        number: int,
        *,
        features: ArrayLike | None = None,
        values: ArrayLike | None = None,
        rng: np.random.Generator | None = None,
        count: int | None = None,
    ) -> NDArray[np.int64]:
        """Return the indices of `count` examples of one class, best first.

        Parameters
        ----------
        number : int
            Examples N.
        features : array-like or Tensor, shape (N, D), floating, optional
            Features, of the masked exemplars or of the full ones: what is to be well represented.
        values : array-like or Tensor, shape (N,), optional
            What the caller measured of each example, such as its loss.
        rng : numpy.random.Generator, optional
            Source of randomness.
        count : int, optional
            Length of the order; all N when left out or larger.

        Raises
        ------
        SchemaError
            If what the rule goes by is missing.
        InvalidExemplarError
            If there is not one row or value per example, one is NaN, or `count` is negative.
        """
        given = {"features": features, "values": values, "rng": rng}[self.needs]
        if given is None:
            raise SchemaError(f"this selection goes by {self.needs}, got none; give {self.needs}=...")
        if self.needs == "rng":
            return self.order(number, given, count=count)
        measured = measured_array(given, self.needs)
        if measured.ndim == 0 or len(measured) != number:
            raise InvalidExemplarError(f"expected {self.needs} of {number} examples, got shape {measured.shape}")
        return self.order(measured, count=count)


def checked_count(count: int | None, number: int) -> int:
    """Return the length of an order of `number` examples, at most that; InvalidExemplarError if negative."""
    return number if count is None else min(whole_number(count, "count", error=InvalidExemplarError), number)


def measured_array(values: Any, what: str) -> NDArray[Any]:
    """Return what a caller measured as an array of numbers; torch tensors of any dtype and device are taken, too."""
    array = as_array(values)
    if array.dtype.kind not in "biuf":
        raise InvalidExemplarError(f"{what}: expected numbers, got {array.dtype} of shape {array.shape}")
    return array


def unit_rows(given: ArrayLike) -> NDArray[np.float64]:
    """Return features (N, D) as float64 rows of length 1; zero vectors stay zero, and what is not finite is refused."""
    features = measured_array(given, "features")
    if features.ndim != 2 or not np.isfinite(features).all():
        raise InvalidExemplarError(f"expected finite features (N, D) without NaN, got shape {features.shape}")
    rows = features.astype(np.float64)
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all():  # squares of huge values overflow
        rows /= np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0), 1.0)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norms > 0, norms, 1.0)
    return rows
