"""Linear discriminant analysis of the examples that it is given: those that are stored."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.train.methods.head import Labelled
from exmem.train.methods.slda import checked_shrinkage, discriminant_weights
from exmem.train.methods.sums import Sums, with_ones
from exmem.train.methods.weights import WeightsHead

__all__ = ["Lda"]

# Of frozen features 0.7 is best, of tuned ones, which a linear head parted already, 0.95: so they are tried.
_TRIED = (0.95, 0.9, 0.8, 0.7, 0.5, 0.3)  # of those that are as good the first
_FOLDS = 5


class Lda(WeightsHead):
    """As `slda`, but refitted after each phase on exemplars, without sums that count.

    The shrinkage that is `auto` is the one of 0.3, 0.5, 0.7, 0.8, 0.9 and 0.95 that gets most examples right which it
    was not fitted to, in five folds; classes count the same, those of one example not.
    """

    def __init__(self, *, shrinkage: float | Literal["auto"] = "auto") -> None:
        self.shrinkage = shrinkage if shrinkage == "auto" else checked_shrinkage(shrinkage)

    @override
    def _weights_of(self, examples: Labelled) -> NDArray[np.floating]:
        rows, labels = with_ones(examples.features), examples.labels
        shrinkage = _chosen(rows, labels) if self.shrinkage == "auto" else float(self.shrinkage)
        return discriminant_weights(Sums.of(rows, labels, gram=True), [shrinkage])[0]


def _chosen(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the shrinkage that is best on examples (N, D + 1) that are left out."""
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    fold = np.empty(len(labels), np.int64)
    for label in range(len(classes)):
        own = np.flatnonzero(inverse == label)
        fold[own] = np.arange(len(own)) % _FOLDS if len(own) > 1 else -1  # an only one is always learnt
    right = np.zeros(len(_TRIED))
    for left_out in range(_FOLDS):
        tested = fold == left_out
        if not tested.any():
            continue
        sums = Sums.of(rows[~tested], labels[~tested], gram=True)
        for at, weights in enumerate(discriminant_weights(sums, _TRIED)):
            hits = classes[(rows[tested] @ weights.T).argmax(1)] == labels[tested]
            right[at] += (hits / counts[inverse[tested]]).sum()
    return _TRIED[int(right.argmax())]
