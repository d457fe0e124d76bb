"""Nearest class mean, of all examples of each class."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from exmem.selection.base import unit_rows
from exmem.train.learner import ClassMeans
from exmem.train.methods.head import Labelled
from exmem.train.methods.sums import Sums, SumsHead

__all__ = ["NearestMean"]


class NearestMean(SumsHead):
    """The class with the highest cosine to the mean of its L2-normalised features (iCaRL, algorithm 1).

    Its sums carry all examples of a class, where iCaRL (Rebuffi et al. 2017) has the exemplars, as
    `nearest_exemplar_mean` does; a sum points where its mean does.
    """

    @property
    @override
    def width(self) -> int | None:
        return None if self._sums is None else self._sums.class_sums.shape[1]

    @override
    def _learn(self, examples: Labelled) -> None:
        rows = unit_rows(examples.features).astype(np.float32)
        self._sums = self._plus(Sums.of(rows, examples.labels, gram=False))

    @override
    def _predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        assert self._sums is not None
        means = ClassMeans(self.classes, torch.from_numpy(self._sums.class_sums))
        predicted: NDArray[np.int64] = means.predict(torch.from_numpy(features)).numpy()
        return predicted

    @override
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._sums = Sums.read(state, gram=False) if state else None
