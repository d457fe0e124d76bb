"""The contract of heads: classifiers on features, fitted after each phase."""

import abc
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError, SchemaError
from exmem.tokens.checks import as_array, real_number, shown

__all__ = ["Head", "Labelled", "positive"]


_LARGEST = 1e15  # of a value


class Labelled(NamedTuple):
    """Features of examples, and their classes: any integers, those of a phase in any order."""

    features: NDArray[np.float32]  # (N, D)
    labels: NDArray[np.int64]  # (N,)


class Head(abc.ABC):
    """A classifier that is fitted after each phase on features (N, D), which all have the same D.

    It predicts classes that it was shown only: one without stored exemplars is lost to a head that is refitted. A fit
    that fails changes nothing. The same calls give the same predictions, in another process that called `load`, too.
    """

    # True: what it learnt of earlier phases is in `state`; each phase gives it all its new examples, once.
    # False: it is refitted on what it is given; the trainer gives it exemplars as they are stored.
    keeps_sums: ClassVar[bool]

    @property
    @abc.abstractmethod
    def classes(self) -> tuple[int, ...]:
        """The classes that it can predict, in order; empty before the first fit."""

    @property
    @abc.abstractmethod
    def width(self) -> int | None:
        """D of what it has learnt; None before the first fit."""

    @abc.abstractmethod
    def _learn(self, examples: Labelled) -> None: ...

    @abc.abstractmethod
    def _predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]: ...

    def fit(self, examples: Labelled) -> None:
        """Learn the examples of a phase: all new ones where sums are kept, else all that is to be known; none is well.

        DataError if features are not finite, do not fit their labels, or are not as wide as those before.
        """
        checked = _checked(examples)
        _check_width(checked.features, self.width, "examples")
        if len(checked.labels):
            self._learn(checked)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the class of each row (N, D), the smallest of those that are as good.

        DataError if no class is known, or the features are not finite or not as wide as those that were learnt.
        """
        checked = _finite(features, "features")
        if not self.classes:
            raise DataError("this head knows no class; fit it on examples, or load its state")
        _check_width(checked, self.width, "features")
        return self._predict(checked) if len(checked) else np.zeros(0, np.int64)

    @abc.abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of what it predicts by, and goes on from where sums are kept; empty before the first fit."""

    @abc.abstractmethod
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` returned; DataError, and nothing is changed, if it is of another head or size."""


def positive(value: object, what: str) -> float:
    """Return a finite number above 0; SchemaError for all else."""
    number = real_number(value, what)
    if not 0 < number < math.inf:
        raise SchemaError(f"{what} must be a finite number above 0, got {shown(value)}")
    return number


def _checked(given: Labelled) -> Labelled:
    features, labels = _finite(given.features, "features of examples"), as_array(given.labels)
    if labels.shape != (len(features),) or (labels.dtype.kind not in "iu" and len(labels)):
        raise DataError(
            f"labels of examples: expected {len(features)} integers, got {labels.dtype} of shape {labels.shape}"
        )
    if labels.dtype.kind == "u" and len(labels) and int(labels.max()) > np.iinfo(np.int64).max:
        raise DataError(f"labels of examples: expected integers of 64 bits with a sign, got {int(labels.max())}")
    return Labelled(features, labels.astype(np.int64))


def _finite(given: object, what: str) -> NDArray[np.float32]:
    features = as_array(given)
    if features.ndim != 2 or features.dtype.kind != "f":
        raise DataError(f"{what}: expected floats (N, D), got {features.dtype} of shape {features.shape}")
    with np.errstate(over="ignore"):
        features = features.astype(np.float32)
    if wrong := np.flatnonzero(~np.isfinite(features).all(1)).tolist():
        raise DataError(f"{what}: expected finite float32, got NaN or infinity in {len(wrong)} rows, first {wrong[0]}")
    if features.size and (largest := float(np.abs(features).max())) > _LARGEST:
        raise DataError(f"{what} are too large: squares and sums of {largest:g} overflow float32; scale them down")
    return features


def _check_width(features: NDArray[np.float32], width: int | None, what: str) -> None:
    if len(features) and width is not None and features.shape[1] != width:
        raise DataError(f"{what}: expected features of {width} values, as before, got {features.shape[1]}")
