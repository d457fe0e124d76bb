"""Which exemplars are replayed: each pass is a function of the seed and of its number, and of nothing else."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exmem.registry import Registry

__all__ = ["SAMPLERS", "Sampler", "balanced", "uniform"]


class Sampler(Protocol):
    """Draws a pass; a plain function."""

    def __call__(
        self, slots: NDArray[np.int64], labels: NDArray[np.int64], *, length: int, seed: int, number: int
    ) -> NDArray[np.int64]:
        """Draw exemplars.

        Parameters
        ----------
        slots : ndarray, shape (N,), int64
            Slots to draw from, one or more.
        labels : ndarray, shape (N,), int64
            Their classes.
        length : int
            Draws of a pass, which may be more or fewer than N.
        seed : int
            Seed of all passes.
        number : int
            Which pass, from 0.

        Returns
        -------
        ndarray, shape (length,), int64
            Slots in the order in which they are replayed.
        """


def uniform(
    slots: NDArray[np.int64], labels: NDArray[np.int64], *, length: int, seed: int, number: int
) -> NDArray[np.int64]:
    """Draw each exemplar equally often: one random order after the other; see `Sampler`."""
    return slots[_cycled(len(slots), length, np.random.default_rng([seed, number]))]


def balanced(
    slots: NDArray[np.int64], labels: NDArray[np.int64], *, length: int, seed: int, number: int
) -> NDArray[np.int64]:
    """Draw each class equally often, and within it each exemplar; see `Sampler`."""
    rng = np.random.default_rng([seed, number])
    classes = np.unique(labels)
    turns = _cycled(len(classes), length, rng)
    drawn = np.empty(length, np.int64)
    for index, label in enumerate(classes):
        at, of_class = np.flatnonzero(turns == index), slots[labels == label]
        drawn[at] = of_class[_cycled(len(of_class), len(at), rng)]
    return drawn


def _cycled(count: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random orders of 0..count - 1, one after the other, cut at `length`."""
    rounds = [rng.permutation(count) for _ in range(-(-length // count))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])[:length]


SAMPLERS: Registry[Sampler] = Registry("sampler", {"balanced": balanced, "uniform": uniform})
"""Samplers by name: which exemplars come when."""
