"""Exemplar masking: the tokens that matter (Lee et al. 2024)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.masking import KeepRule, Scorer
from exmem.tensors import TensorBatch
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec

__all__ = ["MaskedTokens"]


class MaskedTokens:
    """The image patches with high scores, and the text tokens that the text rule keeps (Lee et al. 2024).

    Parameters
    ----------
    backbone : Backbone
        The backbone that scores, and that will see the exemplars.
    scorer : Scorer
        Gives tokens an importance.
    keep_rule : callable
        Turns image scores into `keep`.
    text_rule : callable
        Says which text tokens are kept, given what the image lost.
    quality : int
        JPEG quality of the kept patches.
    """

    passes = 1

    def __init__(
        self, backbone: Backbone, *, scorer: Scorer, keep_rule: KeepRule, text_rule: KeepRule, quality: int
    ) -> None:
        self.backbone, self.quality = backbone, quality
        self.scorer, self.keep_rule, self.text_rule = scorer, keep_rule, text_rule

    def schema(self) -> Schema:
        """Return patches and text tokens."""
        specs = self.backbone.token_specs()
        codec = {"id": "patch_jpeg", "quality": self.quality}
        image = TokenSpec(positions=specs["image"].positions, shape=specs["image"].shape, codec=codec)
        return Schema({"image": image, "text": specs["text"]})

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Score and mask; see `Recipe`.

        Parameters
        ----------
        images : ndarray, shape (B, image_size, image_size, 3), uint8
            Pictures.
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
        batch = self.backbone.tokens(images, texts)
        maps = self.scorer(self.backbone, TensorBatch.from_numpy(batch))
        image_keep = self.keep_rule(maps.scores["image"], valid=maps.valid["image"])
        special = np.zeros_like(maps.valid["text"])
        words = batch.tokens["text"]
        special[:, : words.values.shape[1]] = np.isin(words.values, list(self.backbone.special_ids)) & words.keep
        text_keep = self.text_rule(maps, image_keep, special)
        return [
            Exemplar(
                {
                    "image": TokenSet.kept(batch.tokens["image"].values[row], image_keep[row]),
                    "text": TokenSet.kept(words.values[row], text_keep[row, : words.values.shape[1]]),
                },
                label=int(labels[row]),
                priority=float(priorities[row]),
            )
            for row in range(len(batch))
        ]

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Return the batch as it is: its tokens are the backbone's.

        Parameters
        ----------
        batch : TensorBatch
            Stored exemplars.

        Returns
        -------
        TensorBatch
            The same.
        """
        return batch
