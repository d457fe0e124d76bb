"""Logistic regression on the examples that it is given: those that are stored."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from typing_extensions import override

from exmem.tokens.checks import whole_number
from exmem.train.methods.head import Head, Labelled, positive

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
        self._model: Any = None  # None where there is one class, of which scikit-learn makes no model

    @property
    @override
    def classes(self) -> tuple[int, ...]:
        return tuple(self._classes.tolist())

    @override
    def _learn(self, examples: Labelled) -> None:
        classes, model = np.unique(examples.labels), None
        if len(classes) > 1:
            model = LogisticRegression(C=self.C, tol=self.tol, max_iter=self.max_iter, class_weight="balanced")
            with warnings.catch_warnings():  # a few examples of each class are no regression problem
                warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
                model.fit(examples.features, examples.labels)
        self._classes, self._model = classes, model

    @override
    def _predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        if self._model is None:
            return np.full(len(features), self._classes[0])
        predicted: NDArray[np.int64] = self._model.predict(features)
        return predicted

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each of `classes` by row, (N, C)."""
        if self._model is None:
            return np.ones((len(features), len(self._classes)))
        found: NDArray[np.float64] = self._model.predict_proba(features)
        return found
