"""Which examples of a data set are looked at, stored and tested on, where that is a sample."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError
from exmem.train.data import ImageText

__all__ = ["Fold", "chosen_rows", "folds_of", "sample_rows", "told_apart"]

_FEWEST_FOLDS, _MOST_FOLDS, _TESTED = 3, 10, 750  # folds until so many examples are tested on: chance counts less then
_HELD_OUT = 0.25  # of the sample, for testing
_SAMPLE = 1000  # examples at most
Rows = NDArray[np.int64]


class Fold(NamedTuple):
    """Which examples of a sample may be stored, and which are tested on."""

    candidates: Rows
    tested: Rows


def folds_of(labels: Rows, seed: int) -> list[Fold]:
    """Hold a quarter of each class out, one example at least, several times anew."""
    number_of_folds = min(_MOST_FOLDS, max(_FEWEST_FOLDS, math.ceil(_TESTED / (_HELD_OUT * len(labels)))))
    folds = []
    for number in range(number_of_folds):
        draws = np.random.default_rng([seed, number]).random(len(labels))
        held_out = np.zeros(len(labels), np.bool_)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            held_out[rows[np.argsort(draws[rows])[: max(1, round(_HELD_OUT * len(rows)))]]] = True
        folds.append(Fold(np.flatnonzero(~held_out), np.flatnonzero(held_out)))
    return folds


def told_apart(data: ImageText, seed: int) -> tuple[Rows, list[str]]:
    """Return the rows of a sample whose parts can be tested on, and the classes that are left out: of one example.

    DataError if fewer than two classes have two examples.
    """
    counts = np.bincount(data.labels)
    lone = [data.class_names[label] for label in np.flatnonzero(counts == 1)]
    if (counts > 1).sum() < 2:
        raise DataError("recipes are compared by how well classes are told apart: expected two of two examples or more")
    several = np.flatnonzero(counts[data.labels] > 1)
    return several[sample_rows(data.labels[several], most=_SAMPLE, seed=seed)], lone


def sample_rows(labels: NDArray[np.int64], *, most: int, seed: int) -> NDArray[np.int64]:
    """Choose at most so many rows, as many of each class as there are and can be, 2 at least; rising."""
    groups = _shuffled(labels, seed)
    each = max(2, most // max(1, len(groups)))
    return np.sort(np.concatenate([group[:each] for group in groups]))


def chosen_rows(labels: NDArray[np.int64], *, share: float, seed: int) -> NDArray[np.int64]:
    """Choose the rows that a seed may take exemplars from: a share of each class, 2 at least; rising."""
    groups = _shuffled(labels, seed)
    return np.sort(np.concatenate([group[: max(2, round(share * len(group)))] for group in groups]))


def _shuffled(labels: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
