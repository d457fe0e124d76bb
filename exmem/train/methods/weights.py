"""Heads that are refitted after each phase, to weights of features."""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.train.methods.head import Head, Labelled
from exmem.train.methods.sums import rows_of_state

__all__ = ["WeightsHead"]


class WeightsHead(Head):
    """One that is refitted on what it is given: a row of weights for each class, the intercept last."""

    keeps_sums = False
    _classes: NDArray[np.int64] = np.zeros(0, np.int64)
    _weights: NDArray[np.float32] = np.zeros((0, 1), np.float32)  # (C, D + 1)

    @property
    @override
    def classes(self) -> tuple[int, ...]:
        return tuple(self._classes.tolist())

    @property
    @override
    def width(self) -> int | None:
        return self._weights.shape[1] - 1 if self.classes else None

    @abc.abstractmethod
    def _weights_of(self, examples: Labelled) -> NDArray[np.floating]:
        """Fit weights of two classes or more, in order."""

    @override
    def _learn(self, examples: Labelled) -> None:
        classes = np.unique(examples.labels)
        if len(classes) > 1:
            weights = self._weights_of(examples).astype(np.float32)
        else:
            weights = np.zeros((1, examples.features.shape[1] + 1), np.float32)
        self._classes, self._weights = classes, weights

    @override
    def _predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        predicted: NDArray[np.int64] = self._classes[self._scores(features).argmax(1)]
        return predicted

    def _scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return features.astype(np.float64) @ self._weights[:, :-1].T + self._weights[:, -1]

    @override
    def state(self) -> dict[str, NDArray[Any]]:
        return {"classes": self._classes.copy(), "weights": self._weights.copy()} if self.classes else {}

    @override
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        if not state:
            self._classes = self._classes[:0]
            return
        self._classes, self._weights = rows_of_state(state, "weights")
