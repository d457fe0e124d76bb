"""Whole pictures, at full or lower resolution."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exmem.backbones import Backbone
from exmem.replay import patches_of, upsampled
from exmem.tensors import TensorBatch, TokenTensors
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec

__all__ = ["WholePicture"]


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
        size = self.backbone.image_size
        pictures = upsampled(batch.tokens["image"].values, (size, size))[:, 0]
        tokens = {**batch.tokens, "image": TokenTensors.dense(patches_of(pictures, self.backbone.patch))}
        return TensorBatch(tokens, batch.labels, batch.extras)


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if len(image) == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
