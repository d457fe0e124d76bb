"""Nearest mean of the exemplars of each class, as iCaRL classifies."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from exmem.train.learner import ClassMeans
from exmem.train.methods.head import Head, Labelled
from exmem.train.methods.sums import rows_of_state

__all__ = ["NearestExemplarMean"]


class NearestExemplarMean(Head):
    """The class with the highest cosine to the mean of its exemplars' L2-normalised features (iCaRL, algorithm 1).

    It is refitted on what is stored after each phase (Rebuffi et al. 2017, section 2.1).
    """

    keeps_sums = False
    _means: ClassMeans | None = None

    @property
    @override
    def classes(self) -> tuple[int, ...]:
        return () if self._means is None else tuple(self._means.classes)

    @property
    @override
    def width(self) -> int | None:
        return None if self._means is None else self._means.means.shape[1]

    @override
    def _learn(self, examples: Labelled) -> None:
        self._means = ClassMeans.of(torch.from_numpy(examples.features), torch.from_numpy(examples.labels))

    @override
    def _predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        assert self._means is not None
        predicted: NDArray[np.int64] = self._means.predict(torch.from_numpy(features)).numpy()
        return predicted

    @override
    def state(self) -> dict[str, NDArray[Any]]:
        if self._means is None:
            return {}
        return {"classes": np.array(self._means.classes, np.int64), "means": self._means.means.numpy().copy()}

    @override
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        if not state:
            self._means = None
            return
        classes, means = rows_of_state(state, "means")
        self._means = ClassMeans(classes.tolist(), torch.from_numpy(means))
