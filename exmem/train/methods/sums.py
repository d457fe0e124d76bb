"""Sums over examples that are carried from phase to phase, and the ridge regression that they determine."""

import abc
import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from exmem.errors import DataError
from exmem.train.methods.head import Head

__all__ = ["LinearSumsHead", "Sums", "SumsHead", "array_of_state", "gram_of", "ridge_weights", "with_ones"]

_ROWS = 4096  # that are turned into float64 at a time


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums of rows (N, W): by class (C, W), and of their outer products, the lower triangle of the Gram matrix.

    float32 is what is stored, and so what is counted with: sums that were loaded go on like those that never left.
    """

    classes: NDArray[np.int64]  # (C,), in order
    class_sums: NDArray[np.float32]  # (C, W)
    gram: NDArray[np.float32] | None  # (W (W + 1) / 2,), row by row; None where it is not needed

    @classmethod
    def of(cls, rows: NDArray[np.float32], labels: NDArray[np.int64], *, gram: bool) -> "Sums":
        """Sum rows; DataError if float32 cannot hold the sums."""
        classes, class_sums = _sums_by_class(rows, labels)
        with np.errstate(over="ignore"):
            lower = gram_of(rows)[_lower(rows.shape[1])].astype(np.float32) if gram else None
            return cls(classes, class_sums.astype(np.float32), lower)._finite()

    def plus(self, other: "Sums") -> "Sums":
        """Add sums of other rows."""
        classes = np.union1d(self.classes, other.classes)
        class_sums = np.zeros((len(classes), self.class_sums.shape[1]), np.float32)
        gram = None
        with np.errstate(over="ignore"):
            for sums in (self, other):
                class_sums[np.searchsorted(classes, sums.classes)] += sums.class_sums
            if self.gram is not None and other.gram is not None:
                gram = self.gram + other.gram
        return Sums(classes, class_sums, gram)._finite()

    def _finite(self) -> "Sums":
        if not all(np.isfinite(sums).all() for sums in (self.class_sums, self.gram) if sums is not None):
            raise DataError("features are too large: their sums are not finite in float32; scale them down")
        return self

    def square(self) -> NDArray[np.float64]:
        """Return the Gram matrix (W, W) with its lower triangle filled in, all that `ridge_weights` reads."""
        assert self.gram is not None
        width = self.class_sums.shape[1]
        square = np.zeros((width, width))
        square[_lower(width)] = self.gram
        return square

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of the arrays by name."""
        arrays: dict[str, NDArray[Any] | None]
        arrays = {"classes": self.classes, "class_sums": self.class_sums, "gram": self.gram}
        return {name: array.copy() for name, array in arrays.items() if array is not None}

    @classmethod
    def read(cls, state: Mapping[str, NDArray[Any]], *, gram: bool, others: Collection[str] = ()) -> "Sums":
        """Read what `arrays` returned, beside others; DataError if it does not fit together."""
        classes, sums = rows_of_state(state, "class_sums", others=[*others, *(["gram"] if gram else [])])
        if not gram:
            return cls(classes, sums, None)
        width = sums.shape[1]
        return cls(classes, sums, _checked(state, "gram", "float32", (width * (width + 1) // 2,)))


def rows_of_state(
    state: Mapping[str, NDArray[Any]], name: str, *, others: Collection[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return copies of the classes of a state and of a row for each; DataError if it has more than these and others."""
    if strange := sorted(set(state) - {"classes", name, *others}):
        raise DataError(f"expected a state of {['classes', name, *others]}, got {strange} too; it is of another head")
    shape, number = array_of_state(state, name).shape, array_of_state(state, "classes").size
    classes = _checked(state, "classes", "int64", (number,))
    rows = _checked(state, name, "float32", (number, shape[1] if len(shape) == 2 else 0))
    if (np.diff(classes) <= 0).any():
        raise DataError(f"state 'classes': expected each class once, in order, got {classes.tolist()}")
    return classes, rows


def _checked(state: Mapping[str, NDArray[Any]], name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    array = array_of_state(state, name)
    if (array.dtype.name, array.shape) != (dtype, shape):
        raise DataError(f"state {name!r}: expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"state {name!r}: expected finite values, got NaN or infinity")
    return array.copy()


class SumsHead(Head):
    """A head that is determined by sums over all examples of all phases."""

    keeps_sums = True
    _sums: Sums | None = None

    @property
    @override
    def classes(self) -> tuple[int, ...]:
        return () if self._sums is None else tuple(self._sums.classes.tolist())

    @override
    def state(self) -> dict[str, NDArray[Any]]:
        return {} if self._sums is None else self._sums.arrays()

    def _plus(self, sums: Sums) -> Sums:
        return sums if self._sums is None else self._sums.plus(sums)


class LinearSumsHead(SumsHead):
    """One whose sums of rows (N, D + 1), of features and a 1, determine weights (C, D + 1), the bias last."""

    _weights: NDArray[np.float64]

    @property
    @override
    def width(self) -> int | None:
        return None if self._sums is None else self._sums.class_sums.shape[1] - 1

    @abc.abstractmethod
    def _set(self, sums: Sums) -> None:
        """Take over sums, and find the weights; DataError, and nothing is changed, where that cannot be done."""

    @override
    def _predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        assert self._sums is not None
        scores = features @ self._weights[:, :-1].T + self._weights[:, -1]
        predicted: NDArray[np.int64] = self._sums.classes[scores.argmax(1)]
        return predicted

    @override
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        if not state:
            self._sums = None
            return
        self._set(Sums.read(state, gram=True))


def with_ones(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows (N, D + 1) of features and a 1."""
    return np.concatenate([features, np.ones((len(features), 1), np.float32)], 1)


def array_of_state(state: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """Return an array of a state; DataError lists the names when it is not there."""
    if name not in state:
        raise DataError(f"expected a state with {name!r}, got {sorted(state)}; it is of another head")
    return np.asarray(state[name])


def _sums_by_class(
    rows: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the classes (C,) in order, and the sum (C, W) of the rows of each."""
    classes = np.unique(labels)
    sums = [rows[labels == label].sum(0, dtype=np.float64) for label in classes]
    return classes, np.stack(sums) if sums else np.zeros((0, rows.shape[1]))


def gram_of(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the sum (W, W) of the outer products of rows."""
    gram = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _ROWS):
        chunk = rows[start : start + _ROWS].astype(np.float64)
        gram += chunk.T @ chunk
    return gram


def ridge_weights(
    gram: NDArray[np.float64], class_sums: NDArray[np.float32], penalty: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weights (C, W) of ridge regression on one-hot targets, `(G + diag(penalty))^-1 class_sums`.

    `gram` may be its lower triangle. DataError if the sum is singular to the precision that there is.
    """
    system = torch.from_numpy(gram + np.diag(penalty))
    factor, failed = torch.linalg.cholesky_ex(system)  # of the lower triangle
    if failed:
        raise DataError(
            f"ridge regression: the Gram matrix is singular in float32 with a penalty of {penalty.max():g}; raise it"
        )
    weights = torch.cholesky_solve(torch.from_numpy(class_sums.astype(np.float64).T.copy()), factor)
    return np.ascontiguousarray(weights.numpy().T)


def _lower(width: int) -> NDArray[np.bool_]:
    return np.tri(width, dtype=np.bool_)
