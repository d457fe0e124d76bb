"""Whole pictures, at full or lower resolution."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exmem.backbones import Backbone
from exmem.recipes.base import exemplars_of
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec
from exmem.tokens.patches import cut_patches
from exmem.tokens.tensors import TensorBatch, TokenTensors, upsampled

__all__ = ["WholePicture", "resized", "restored_picture"]


class WholePicture:
    """The whole picture as one token, and the whole text or none of it.

    Parameters
    ----------
    backbone : Backbone
        The backbone that will see the exemplars.
    size : tuple of int
        Height and width that are stored, in pixels; a smaller picture than the backbone's is scaled up again at replay
        (bicubic).
    codec : str or mapping
        Payload codec of the picture.
    text : bool
        Whether the text is stored too.
    """

    passes = 0

    def __init__(self, backbone: Backbone, *, size: tuple[int, int], codec: Any, text: bool = True) -> None:
        self.backbone, self.size, self.codec = backbone, size, codec
        self.keeps_text = text and "text" in backbone.token_specs()

    def schema(self) -> Schema:
        """Return one picture and the text tokens."""
        found = {"image": TokenSpec(positions=1, shape=(*self.size, 3), codec=self.codec)}
        return Schema(found | ({"text": self.backbone.token_specs()["text"]} if self.keeps_text else {}))

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Make exemplars; see `Recipe.make`."""
        words = self.backbone.tokenize(texts) if self.keeps_text else None
        found = [
            {"image": TokenSet.dense(resized(image, self.size)[None])} | ({"text": words.row(row)} if words else {})
            for row, image in enumerate(images)
        ]
        return exemplars_of(found, labels, priorities)

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Scale pictures up and cut them into patches; see `Recipe.restore`."""
        return restored_picture(batch, self.backbone)


def restored_picture(batch: TensorBatch, backbone: Backbone) -> TensorBatch:
    """Turn the whole picture of a batch into the patches of a backbone.

    Parameters
    ----------
    batch : TensorBatch
        Exemplars whose modality `image` is one picture.
    backbone : Backbone
        The backbone.

    Returns
    -------
    TensorBatch
        The batch with all patches.
    """
    size = (backbone.grid[0] * backbone.patch, backbone.grid[1] * backbone.patch)
    pictures = upsampled(batch.tokens["image"].values, size)[:, 0]
    return batch.with_tokens({"image": TokenTensors.dense(cut_patches(pictures, backbone.patch))})


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a picture (bicubic, with averaging where it gets smaller).

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        The picture.
    size : tuple of int
        Height and width wanted.

    Returns
    -------
    ndarray, shape (*size, 3), uint8
        The picture in that size; itself where nothing changes.
    """
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
