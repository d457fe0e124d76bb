"""The contract of a recipe."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exmem.tokens import Exemplar, Schema, TokenSet
from exmem.tokens.tensors import TensorBatch

__all__ = ["Recipe", "exemplars_of"]


class Recipe(Protocol):
    """How an exemplar is made; `passes` of a picture through the backbone that takes."""

    passes: int

    def schema(self) -> Schema:
        """Return the schema of its exemplars."""

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Make exemplars of pictures and texts.

        Parameters
        ----------
        images : ndarray, shape (B, H, W, 3), uint8
            Pictures of the size of the backbone.
        texts : sequence of str
            Their texts.
        labels : ndarray, shape (B,), int64
            Their classes.
        priorities : ndarray, shape (B,), float64
            Their ranks.

        Returns
        -------
        list of Exemplar
            One each.
        """

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Turn stored exemplars into the tokens of the backbone; what was dropped stays away.

        Parameters
        ----------
        batch : TensorBatch
            Stored exemplars.

        Returns
        -------
        TensorBatch
            Their tokens; a thumbnail stays beside them for the fill of that name.
        """


def exemplars_of(
    tokens: Sequence[Mapping[str, TokenSet]], labels: NDArray[np.int64], priorities: NDArray[np.float64]
) -> list[Exemplar]:
    """Put token sets, classes and ranks together.

    Parameters
    ----------
    tokens : sequence of mapping of str to TokenSet
        Token sets of each exemplar.
    labels : ndarray, shape (B,), int64
        Their classes.
    priorities : ndarray, shape (B,), float64
        Their ranks.

    Returns
    -------
    list of Exemplar
        One each.
    """
    return [
        Exemplar(own, label=int(label), priority=float(priority))
        for own, label, priority in zip(tokens, labels, priorities, strict=True)
    ]
