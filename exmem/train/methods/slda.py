"""Linear discriminant analysis with one covariance of all classes, by sums over all examples."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from exmem.errors import DataError, SchemaError
from exmem.tokens.checks import real_number, shown
from exmem.train.methods.head import Labelled
from exmem.train.methods.sums import LinearSumsHead, Sums, with_ones

__all__ = ["Slda", "checked_shrinkage", "discriminant_weights"]


class Slda(LinearSumsHead):
    """Class means and one covariance S of what is left around them (SLDA, Hayes & Kanan 2020, equations 1 and 2).

    The class with the largest `m P f - m P m / 2` for its mean m, P being the inverse of `(1 - s) S + s v I`. The mean
    variance v, which is 1 in the paper, makes `shrinkage` s free of the scale of features (a choice). Classes count the
    same, whatever their number of examples. Phase by phase it is one fit on everything.
    """

    # The shrinkage is measured: of layer-normed features (768 and 1152 values, 1,540 examples) 0.1 to 0.6 are within 3
    # points; the paper's 1e-4, of a million examples, loses 18.
    def __init__(self, *, shrinkage: float = 0.3) -> None:
        self.shrinkage = checked_shrinkage(shrinkage)

    @override
    def _learn(self, examples: Labelled) -> None:
        self._set(self._plus(Sums.of(with_ones(examples.features), examples.labels, gram=True)))

    @override
    def _set(self, sums: Sums) -> None:
        self._weights = discriminant_weights(sums, [self.shrinkage])[0]
        self._sums = sums


def checked_shrinkage(value: object) -> float:
    """Return a share above 0 and at most 1; SchemaError for all else."""
    shrinkage = real_number(value, "shrinkage")
    if not 0 < shrinkage <= 1:
        raise SchemaError(f"shrinkage must be above 0 and at most 1, got {shown(value)}")
    return shrinkage


def discriminant_weights(sums: Sums, shrinkages: Sequence[float]) -> list[NDArray[np.float64]]:
    """Return weights (C, D + 1) of features and a 1 for each shrinkage, by sums of both; DataError without counts."""
    counts, totals = sums.class_sums[:, -1].astype(np.float64), sums.class_sums[:, :-1].astype(np.float64)
    if not (counts > 0).all():
        raise DataError("state 'class_sums': expected examples of each class in the last column")
    means = totals / counts[:, None]
    within = sums.square()[:-1, :-1] - np.tril(totals.T @ means)  # around the means, the lower triangle
    # One decomposition does for all shrinkages; rounding of float32 sums may leave values below 0.
    values, vectors = torch.linalg.eigh(torch.from_numpy(within / counts.sum()))
    spectrum, turned = values.numpy().clip(0), means @ vectors.numpy()
    variance = max(float(spectrum.mean()), float(np.finfo(np.float32).tiny))
    found = []
    for shrinkage in shrinkages:
        precise = turned / ((1 - shrinkage) * spectrum + shrinkage * variance)
        offset = -(precise * turned).sum(1, keepdims=True) / 2
        found.append(np.concatenate([precise @ vectors.numpy().T, offset], 1))
    return found
