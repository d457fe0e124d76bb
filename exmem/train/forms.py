"""Examples in the form in which they are replayed: of stored exemplars, and of examples that are not stored."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.recipes import Recipe
from exmem.replay import FILLS, FillContext, class_means
from exmem.replay.augment import Augmentation
from exmem.tokens import TokenBatch
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText

__all__ = ["Replayed", "stored_form"]


class Replayed:
    """Turns stored exemplars into what the backbone sees: put together, augmented, filled.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    recipe : Recipe
        How exemplars were made.
    fill : str
        What becomes of dropped patches.
    augmentation : Augmentation, optional
        What exemplars go through between.
    """

    def __init__(
        self, backbone: Backbone, recipe: Recipe, *, fill: str, augmentation: Augmentation | None = None
    ) -> None:
        self._recipe, self._augmentation = recipe, augmentation
        self._fill, self.needs_class_means = FILLS.make(fill), fill == "class_mean"
        specs = backbone.token_specs()
        self._context = FillContext(
            length=specs["image"].positions if "image" in specs else 1,
            grid=backbone.grid if "image" in specs else None,
        )

    def know(self, batches: Callable[[], Iterable[TensorBatch]]) -> None:
        """Take the mean colours of classes from exemplars, if the fill needs them.

        Parameters
        ----------
        batches : callable
            Returns all stored exemplars, some at a time.
        """
        if self.needs_class_means:
            means = class_means(self._recipe.restore(batch) for batch in batches())
            self._context = dataclasses.replace(self._context, class_means=means)

    def __call__(self, batch: TensorBatch, generator: torch.Generator | None = None) -> TensorBatch:
        """Make tokens of the backbone.

        Parameters
        ----------
        batch : TensorBatch
            Stored exemplars.
        generator : torch.Generator, optional
            Randomness of the augmentations; without it nothing is augmented.

        Returns
        -------
        TensorBatch
            Their tokens.
        """
        tokens = self._recipe.restore(batch)
        if self._augmentation is not None and generator is not None:
            tokens = self._augmentation(tokens, generator=generator)
        return self._fill(tokens, self._context)


def stored_form(
    backbone: Backbone, data: ImageText, recipe: Recipe, *, fill: str
) -> Callable[[NDArray[np.int64]], TensorBatch]:
    """Return what reads examples of a data set as they would be replayed, without what a lossy codec does to them.

    Parameters
    ----------
    backbone : Backbone
        The backbone; scorers see it as it is when rows are read.
    data : ImageText
        The data.
    recipe : Recipe
        How exemplars are made.
    fill : str
        What becomes of dropped patches; for `class_mean` the colours are those of the rows read together.

    Returns
    -------
    callable
        Row numbers -> TensorBatch.
    """
    replayed = Replayed(backbone, recipe, fill=fill)

    def read(rows: NDArray[np.int64]) -> TensorBatch:
        texts, labels = [data.texts[row] for row in rows.tolist()], data.labels[rows]
        made = recipe.make(data.images(rows, backbone.picture_size), texts, labels, np.zeros(len(rows)))
        batch = TensorBatch.from_numpy(TokenBatch.of(made))
        replayed.know(lambda: [batch])
        return replayed(batch)

    return read
