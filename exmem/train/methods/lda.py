"""Linear discriminant analysis of the examples that it is given: those that are stored."""

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.train.methods.head import Labelled
from exmem.train.methods.slda import checked_shrinkage, discriminant_weights
from exmem.train.methods.sums import Sums, with_ones
from exmem.train.methods.weights import WeightsHead

__all__ = ["Lda"]


class Lda(WeightsHead):
    """As `slda`, but refitted after each phase on exemplars, without sums that count.

    Of few exemplars in many dimensions the covariance says little, so more is shrunk than of all examples.
    """

    def __init__(self, *, shrinkage: float = 0.9) -> None:
        self.shrinkage = checked_shrinkage(shrinkage)

    @override
    def _weights_of(self, examples: Labelled) -> NDArray[np.floating]:
        sums = Sums.of(with_ones(examples.features), examples.labels, gram=True)
        return discriminant_weights(sums, self.shrinkage)
