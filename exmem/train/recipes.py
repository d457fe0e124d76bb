"""Recipes: how an exemplar is made of a picture and a text, and turned back into tokens at replay."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from exmem.backbones import Backbone, patchify
from exmem.masking import KeepRule, Scorer, get_keep_rule, get_scorer, get_text_rule
from exmem.tensors import TensorBatch, TokenTensors
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec
from exmem.train.config import TrainConfig

__all__ = ["MaskedTokens", "Recipe", "WholePicture", "make_recipe"]


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
        """Make exemplars of pictures (B, image_size, image_size, 3) and texts."""

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Turn stored exemplars into the tokens of the backbone."""


class WholePicture:
    """The whole picture as one token, and the whole text.

    Parameters
    ----------
    backbone : Backbone
        The backbone that will see the exemplars.
    side : int
        Side that is stored, in pixels; a smaller one than the backbone's is scaled up again at replay (bicubic).
    codec : str or mapping
        Payload codec of the picture.
    """

    passes = 0

    def __init__(self, backbone: Backbone, *, side: int, codec: Any) -> None:
        self.backbone, self.side, self.codec = backbone, side, codec

    def schema(self) -> Schema:
        """Return one picture and the text tokens."""
        image = TokenSpec(positions=1, shape=(self.side, self.side, 3), codec=self.codec)
        return Schema({"image": image, "text": self.backbone.token_specs()["text"]})

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Make exemplars; see `Recipe`.

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
        words = self.backbone.tokenize(texts)
        return [
            Exemplar(
                {"image": TokenSet.dense(_resized(image, self.side)[None]), "text": words.row(row)},
                label=int(labels[row]),
                priority=float(priorities[row]),
            )
            for row, image in enumerate(images)
        ]

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Scale pictures up and cut them into patches.

        Parameters
        ----------
        batch : TensorBatch
            Stored exemplars.

        Returns
        -------
        TensorBatch
            Tokens of the backbone; all patches are kept.
        """
        pictures = batch.tokens["image"].values[:, 0]
        size = self.backbone.image_size
        if self.side != size:
            channels_first = pictures.permute(0, 3, 1, 2).float()
            larger = interpolate(channels_first, size=(size, size), mode="bicubic", align_corners=False)
            pictures = larger.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        patches = torch.from_numpy(patchify(pictures.contiguous().numpy(), self.backbone.patch))
        tokens = {**batch.tokens, "image": TokenTensors.dense(patches)}
        return TensorBatch(tokens, batch.labels, batch.extras)


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


def make_recipe(config: TrainConfig, backbone: Backbone) -> Recipe | None:
    """Make the recipe of a run.

    Parameters
    ----------
    config : TrainConfig
        Names it.
    backbone : Backbone
        The backbone.

    Returns
    -------
    Recipe or None
        None for `none`: no memory.
    """
    jpeg = {"id": "patch_jpeg", "quality": config.quality}
    size = backbone.image_size
    if config.recipe == "none":
        return None
    if config.recipe == "raw":
        return WholePicture(backbone, side=size, codec="raw")
    if config.recipe == "jpeg":
        return WholePicture(backbone, side=size, codec=jpeg)
    if config.recipe == "half_jpeg":
        return WholePicture(backbone, side=size // 2, codec=jpeg)
    options = {"layers": config.score_layers} if config.scorer == "cls_attention" else {"seed": config.seed}
    rule = {"k": config.keep_patches} if config.keep_rule == "top_k" else {}
    return MaskedTokens(
        backbone,
        scorer=get_scorer(config.scorer, **options),
        keep_rule=get_keep_rule(config.keep_rule, **rule),
        text_rule=get_text_rule(config.text_rule),
        quality=config.quality,
    )


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if len(image) == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
