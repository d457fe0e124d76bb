"""A frozen probe: what recipes are worth at a budget, before anything is trained.

One pass of the trunk over a sample; then each recipe makes exemplars of it, a memory of each budget says which of them
fit, and a classifier fitted on nothing but these is tested on examples that were held out. Nothing is tuned.
"""

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from exmem.backbones import Backbone, Hidden
from exmem.recipes import BoundRecipe, Recipe
from exmem.registry import Part
from exmem.tokens import TokenBatch
from exmem.tokens.tensors import TensorBatch
from exmem.train.batches import images_of
from exmem.train.data import ImageText
from exmem.train.hidden import Advance, KeptHidden, backbone_key, features_of, kept_hidden, scored, tokens_of
from exmem.train.learner import Learner
from exmem.train.samples import folds_of
from exmem.train.stored_sample import StoredSample
from exmem.train.tuners import TUNERS

__all__ = ["Probe", "Seen"]

_ROWS = 64  # that are looked at at once

Rows = NDArray[np.int64]


class Seen:
    """Examples, decoded once, and what the trunk makes of them, where that is not known."""

    def __init__(self, learner: Learner, data: ImageText, advance: Advance, states: Hidden | None = None) -> None:
        backbone = learner.backbone
        self._backbone, self.rows = backbone, np.arange(len(data))
        self.texts, self.labels = data.texts, data.labels
        sees, shape = "image" in backbone.token_specs(), (len(data), *backbone.image_sides, 3)
        self.images = np.empty(shape, np.uint8) if sees else images_of(backbone, data, self.rows)
        parts = []
        for start in range(0, len(data), _ROWS):
            rows = self.rows[start : start + _ROWS]
            if sees:
                self.images[rows] = data.images(rows, backbone.image_sides)
            if states is None:
                parts.append(backbone.embed(self.tokens(rows)).to("cpu").to(torch.float16))
            advance(len(rows))
        self.states = Hidden.cat(parts) if states is None else states
        self.hidden = KeptHidden(self.states, backbone.pixel_mean.device)
        self.features = features_of(learner, self.hidden, self.rows).numpy()

    def tokens(self, rows: Rows) -> TensorBatch:
        """Return all tokens of some rows, with their classes."""
        batch = self._backbone.tokens(self.images[rows], [self.texts[row] for row in rows.tolist()])
        return TensorBatch.from_numpy(TokenBatch(batch.tokens, self.labels[rows]))


class Probe:
    """A frozen backbone, a sample of labelled examples, and what the trunk makes of it.

    `rows` of the data are the sample; its images lie decoded in RAM. What is not stored is tested on, in folds that
    `seed` draws, or all of `test`. `shares_trunk`: the cache of all runs holds what the trunk makes of all of the data.
    `advance` is told how many examples have passed it. The backbone is frozen. Random
    masks, codecs' tables and class means of fills are those of the whole sample, whichever rows a memory is offered.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: ImageText,
        rows: Rows,
        *,
        test: ImageText | None = None,
        seed: int = 0,
        shares_trunk: bool = False,
        advance: Advance,
    ) -> None:
        key = backbone_key(backbone) if shares_trunk else None
        self.backbone = backbone.to(Accelerator().device)
        self.learner = Learner(self.backbone, TUNERS.make("frozen"))
        self.sample = sample = self._seen(data, rows, key, advance)
        self.test = sample if test is None else self._seen(test, np.arange(len(test)), key, advance)
        self.folds = folds_of(sample.labels, seed) if test is None else None
        self._scores: dict[Part, list[NDArray[np.float32]]] = {}

    def _seen(self, data: ImageText, rows: Rows, key: str | None, advance: Advance) -> Seen:
        """Look at rows of the data; by the key of the backbone, what its trunk makes of all rows is shared."""
        if key is None:
            return Seen(self.learner, data.subset(rows), advance)
        tokens, every = tokens_of(self.backbone, data), np.arange(len(data))
        known = kept_hidden(f"{data.key()}-{key}", self.backbone, tokens, every, lambda _: None)
        return Seen(self.learner, data.subset(rows), advance, known.select(torch.from_numpy(rows)))

    def store(self, recipe: Recipe, advance: Advance = lambda _: None) -> StoredSample:
        """Store the sample by a recipe; `advance` is told how many exemplars were made.

        SchemaError if the backbone cannot make such exemplars, CodecError if the sample is too small to train the codec
        on. They are read and embedded when they are first measured.
        """
        return StoredSample(self, recipe, advance)

    def scores(self, bound: BoundRecipe) -> list[NDArray[np.float32]]:
        """Score the patches of the sample and of what is tested on, once for all recipes of the same scorer."""
        scorer = bound.recipe.scorer
        if scorer not in self._scores:
            self._scores[scorer] = [
                scored(bound.masking, seen.tokens, seen.hidden, seen.rows, lambda _: None)
                for seen in (self.sample, self.test)
            ]
        return self._scores[scorer]
