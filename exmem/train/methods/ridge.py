"""Ridge regression on one-hot targets, by sums over all examples."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.errors import DataError
from exmem.tokens.checks import flag
from exmem.train.methods.head import Labelled, positive
from exmem.train.methods.sums import LinearSumsHead, Sums, ridge_weights, with_ones

__all__ = ["Ridge"]

_BALANCED_EXAMPLES = 100  # that each class counts as when balanced (a choice): `strength` keeps its scale


class Ridge(LinearSumsHead):
    """Ridge regression on one-hot targets with a bias; phase by phase it is the same as one fit on all examples.

    `strength` is the penalty on squared weights, as `alpha` of scikit-learn; the bias is free. `balanced` lets each
    class count the same however many examples it has; then all of a class must come in one phase.
    """

    # The strength is measured: of layer-normed features (768 and 1152 values, 8 to 70 examples a class) 100 is within
    # 1 point of the best, and 2.5 behind 300 where classes have 10 or 70. To balance gained 3 points there.
    def __init__(self, *, strength: float = 100.0, balanced: bool = True) -> None:
        self.strength, self.balanced = positive(strength, "strength"), flag(balanced, "balanced")

    @override
    def _learn(self, examples: Labelled) -> None:
        labels = examples.labels
        rows = with_ones(examples.features)
        sums = self._balanced(rows, labels) if self.balanced else Sums.of(rows, labels, gram=True)
        self._set(self._plus(sums))

    def _balanced(self, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> Sums:
        if again := sorted(set(self.classes) & set(labels.tolist())):
            raise DataError(f"classes {again} came in an earlier phase, which fixed their weights; use balanced=False")
        _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
        roots = np.sqrt(_BALANCED_EXAMPLES / counts).astype(np.float32)[:, None]
        sums = Sums.of(rows * roots[places], labels, gram=True)  # both factors of an outer product have a root
        return dataclasses.replace(sums, class_sums=sums.class_sums * roots)

    @override
    def _set(self, sums: Sums) -> None:
        penalty = np.full(sums.class_sums.shape[1], self.strength)
        penalty[-1] = 0.0
        self._weights = ridge_weights(sums.square(), sums.class_sums, penalty)
        self._sums = sums
