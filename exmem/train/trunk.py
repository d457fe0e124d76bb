"""What the frozen trunk makes of the data of a run, once for all its phases: hidden tokens, and scores of patches."""

import numpy as np

from exmem.backbones import Backbone
from exmem.recipes import BoundRecipe
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.hidden import (
    HiddenOf,
    KeptHidden,
    Known,
    LiveHidden,
    kept_and_scored,
    kept_hidden,
    scored,
    tokens_of,
)
from exmem.train.progress import RunProgress
from exmem.train.ranks import Ranks

__all__ = ["Trunk"]


class Trunk:
    """Hidden tokens of both splits of a run's data, and what exemplars can be made of without running it again."""

    def __init__(
        self,
        config: TrainConfig,
        backbone: Backbone,
        bound: BoundRecipe | None,
        ranks: Ranks,
        progress: RunProgress,
    ) -> None:
        self._config, self._backbone, self._bound = config, backbone, bound
        self._ranks, self._progress = ranks, progress

    def train(self, data: ImageText, key: str) -> tuple[HiddenOf, Known]:
        """Return hidden tokens of the training data, and what is known of them when exemplars are made."""
        return self._split("train", data, key)

    def test(self, data: ImageText, key: str) -> HiddenOf:
        """Return hidden tokens of the test data."""
        return self._split("test", data, key)[0]

    def _split(self, split: str, data: ImageText, key: str) -> tuple[HiddenOf, Known]:
        """Where scores never change, the pass that finds hidden tokens finds those of what is stored, too.

        Where the learner sees kept tokens only, these are chosen by the backbone as it is before any tuning.
        """
        config, backbone, ranks = self._config, self._backbone, self._ranks
        if config.loop.precision != "float32":
            key = f"{key}-{config.loop.precision}"
        tokens, rows, pruned = tokens_of(backbone, data), np.arange(len(data)), config.prunes
        if not config.loop.keep_hidden:
            return LiveHidden(backbone, tokens), Known()
        advance = self._progress.stage(f"hidden tokens of {split}", len(data))
        masking, scores = self._bound.masking if self._bound is not None else None, None
        if masking is not None and masking.is_fixed and (pruned or split == "train"):
            scorer = str(config.recipe.scorer)
            states, scores = kept_and_scored(key, masking, tokens, rows, advance, scorer=scorer, ranks=ranks)
        else:
            states = kept_hidden(key, backbone, tokens, rows, advance, ranks=ranks)
        hidden = KeptHidden(states, ranks.device)
        if pruned:
            assert self._bound is not None  # the configuration refuses a recipe that keeps all tokens
            if scores is None:
                advance = self._progress.stage(f"scores of {split}", len(data))
                scores = scored(self._bound.masking, tokens, hidden, rows, advance, ranks=ranks)
            hidden = KeptHidden(self._bound.pruned(states, scores), ranks.device)
        if split == "test" or masking is None:
            return hidden, Known()
        of_hidden = config.recipe.level == "hidden" or (masking.scorer is not None and scores is None)
        return hidden, Known(hidden if of_hidden else None, scores)
