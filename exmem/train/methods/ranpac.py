"""RanPAC: ridge regression behind a random projection."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.errors import DataError
from exmem.tokens.checks import whole_number
from exmem.train.methods.head import Labelled
from exmem.train.methods.sums import Sums, SumsHead, array_of_state, gram_of, ridge_weights

__all__ = ["RanPac", "held_out_errors"]

_STRENGTHS: NDArray[np.float64] = 10.0 ** np.arange(-8.0, 9.0)  # as in the authors' code, `optimise_ridge_parameter`
_FITTED = 0.8  # of the examples of a phase, there as well; the others choose among the strengths


class RanPac(SumsHead):
    """Ridge regression on `relu(features @ W)` with `projection` columns (McDonnell et al. 2023, algorithm 1).

    W is drawn from a standard normal by `seed`, so only the sums are carried. The penalty is the one of 10^-8..10^8
    whose squared error is lowest on a fifth of the examples of the last phase, when fitted on the others; never below
    what float32 sums can resolve. A phase of one example leaves it as it was, at first 1.
    """

    def __init__(self, *, projection: int = 2000, seed: int = 0) -> None:
        self.projection, self.seed = whole_number(projection, "projection", least=1), whole_number(seed, "seed")
        self.strength = 1.0
        self._matrix = np.zeros((0, self.projection), np.float32)  # W (D, M)
        self._weights: NDArray[np.float64] = np.zeros((0, self.projection))  # (C, M)

    @property
    @override
    def width(self) -> int | None:
        return None if self._sums is None else len(self._matrix)

    @override
    def _learn(self, examples: Labelled) -> None:
        matrix = self._matrix_for(examples.features.shape[1])
        rows = _projected(examples.features, matrix)
        strength = self._chosen(rows, examples.labels) if len(rows) > 1 else self.strength
        self._set(self._plus(Sums.of(rows, examples.labels, gram=True)), matrix, strength)

    def _matrix_for(self, width: int) -> NDArray[np.float32]:
        if len(self._matrix) == width:
            return self._matrix
        return np.random.default_rng(self.seed).standard_normal((width, self.projection), np.float32)

    def _chosen(self, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        order = np.random.default_rng(self.seed).permutation(len(rows))
        errors = held_out_errors(rows[order], labels[order], number=int(_FITTED * len(rows)), strengths=_STRENGTHS)
        return float(_STRENGTHS[errors.argmin()])

    def _set(self, sums: Sums, matrix: NDArray[np.float32], strength: float) -> None:
        gram = sums.square()
        # The rounding of each entry is a random matrix, whose largest eigenvalue grows with the root of its side.
        floor = np.finfo(np.float32).eps * np.sqrt(len(gram)) * gram.diagonal().max()
        penalty = np.full(len(gram), max(strength, floor))
        self._weights = ridge_weights(gram, sums.class_sums, penalty)
        self._sums, self._matrix, self.strength = sums, matrix, strength

    @override
    def _predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        assert self._sums is not None
        scores = _projected(features, self._matrix) @ self._weights.T
        predicted: NDArray[np.int64] = self._sums.classes[scores.argmax(1)]
        return predicted

    @override
    def state(self) -> dict[str, NDArray[Any]]:
        sums = super().state()
        drawn = np.array([self.seed, *self._matrix.shape], np.int64)
        return {**sums, "projection": drawn, "strength": np.array([self.strength])} if sums else {}

    @override
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        if not state:
            self._sums, self.strength = None, 1.0
            return
        drawn, strength = (array_of_state(state, name).ravel().tolist() for name in ("projection", "strength"))
        if len(drawn) != 3 or [drawn[0], drawn[2]] != [self.seed, self.projection] or drawn[1] < 1:
            raise DataError(
                f"state 'projection': expected one by seed {self.seed} to {self.projection} values, got {drawn} "
                "(seed, values before and after)"
            )
        if len(strength) != 1 or not isinstance(strength[0], float) or not 0 < strength[0] < np.inf:
            raise DataError(f"state 'strength': expected one number above 0, got {strength}")
        sums = Sums.read(state, gram=True, others=("projection", "strength"))
        if sums.class_sums.shape[1] != self.projection:
            raise DataError(f"state: expected sums of {self.projection} values, got {sums.class_sums.shape[1]}")
        self._set(sums, self._matrix_for(drawn[1]), strength[0])


def _projected(features: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    projected: NDArray[np.float32] = np.maximum(features @ matrix, np.float32(0))
    return projected


def held_out_errors(
    rows: NDArray[np.float32], labels: NDArray[np.int64], *, number: int, strengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit ridge regression on the first `number` rows (N, M); return its mean squared error on the others by strength.

    One eigendecomposition serves all strengths, of the smaller of the matrices M x M and number x number.
    """
    classes = np.unique(labels)
    fitted, held_out = rows[:number], rows[number:]
    one_hot = (labels[:, None] == classes).astype(np.float64)
    if number < rows.shape[1]:
        values, vectors = np.linalg.eigh(fitted.astype(np.float64) @ fitted.T.astype(np.float64))
        left, right = held_out @ (fitted.T.astype(np.float64) @ vectors), vectors.T @ one_hot[:number]
    else:
        values, vectors = np.linalg.eigh(gram_of(fitted))
        left, right = held_out @ vectors, vectors.T @ (fitted.T.astype(np.float64) @ one_hot[:number])
    penalised = np.maximum(values, 0)[:, None] + strengths[:, None, None]
    errors = [((left @ (right / divisor) - one_hot[number:]) ** 2).mean() for divisor in penalised]
    return np.array(errors)
