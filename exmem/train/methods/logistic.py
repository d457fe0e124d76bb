"""Logistic regression on the examples that it is given: those that are stored."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from typing_extensions import override

from exmem.tokens.checks import whole_number
from exmem.train.methods.head import Head, Labelled, positive
from exmem.train.methods.sums import rows_of_state

__all__ = ["Logistic"]


class Logistic(Head):
    """Multinomial logistic regression, refitted after each phase with classes weighted to count the same.

    `C` is the inverse of the L2 penalty, as in scikit-learn, which warns (`ConvergenceWarning`) when `max_iter` steps
    of L-BFGS did not bring the largest gradient below `tol`. It starts at zero each time: a start at the weights of the
    phase before would make a run that is continued differ from one that never stopped.
    """

    keeps_sums = False

    # The defaults are measured: of layer-normed features (768 and 1152 values, 8 to 70 examples a class) C=0.02 is
    # within 2 points of the best; `tol` of 1e-4 takes four times as long and changes 1 % of the predictions.
    def __init__(self, *, C: float = 0.02, tol: float = 1e-3, max_iter: int = 300) -> None:  # noqa: N803
        self.C, self.tol = positive(C, "C"), positive(tol, "tol")
        self.max_iter = whole_number(max_iter, "max_iter", least=1)
        self._classes: NDArray[np.int64] = np.zeros(0, np.int64)
        self._weights: NDArray[np.float32] = np.zeros((0, 0), np.float32)  # (C, D + 1), the intercept last

    @property
    @override
    def classes(self) -> tuple[int, ...]:
        return tuple(self._classes.tolist())

    @override
    def _learn(self, examples: Labelled) -> None:
        classes, width = np.unique(examples.labels), examples.features.shape[1]
        weights = np.zeros((len(classes), width + 1), np.float32)
        if len(classes) > 1:  # of one, scikit-learn makes no model
            model = LogisticRegression(C=self.C, tol=self.tol, max_iter=self.max_iter, class_weight="balanced")
            with warnings.catch_warnings():  # a few examples of each class are no regression problem
                warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
                model.fit(examples.features, examples.labels)
            fitted = np.column_stack([model.coef_, model.intercept_])
            weights[-len(fitted) :] = fitted  # of two classes there is one row, for the second
        self._classes, self._weights = classes, weights

    @override
    def _predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        predicted: NDArray[np.int64] = self._classes[self._logits(features).argmax(1)]
        return predicted

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each of `classes` by row, (N, C)."""
        found: NDArray[np.float64] = softmax(self._logits(features), axis=1)
        return found

    def _logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return features.astype(np.float64) @ self._weights[:, :-1].T + self._weights[:, -1]

    @override
    def state(self) -> dict[str, NDArray[Any]]:
        return {"classes": self._classes.copy(), "weights": self._weights.copy()} if self.classes else {}

    @override
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        if not state:
            self._classes, self._width = self._classes[:0], None
            return
        self._classes, self._weights = rows_of_state(state, "weights")
        self._width = self._weights.shape[1] - 1
