"""Exemplar masking: the tokens that matter (Lee et al. 2024)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.recipes.base import exemplars_of
from exmem.recipes.masking import Masking
from exmem.recipes.whole import resized
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec
from exmem.tokens.tensors import TensorBatch

__all__ = ["MaskedTokens"]


class MaskedTokens:
    """The image patches with high scores, and the text tokens that the text rule keeps (Lee et al. 2024).

    Parameters
    ----------
    masking : Masking
        Says what is kept.
    quality : int
        JPEG quality of the kept patches.
    thumbnail : int
        Side of a thumbnail of the whole picture that is stored besides, for the fill of that name; 0 for none.
    """

    passes = 1

    def __init__(self, masking: Masking, *, quality: int, thumbnail: int = 0) -> None:
        self.masking, self.quality, self.thumbnail = masking, quality, thumbnail

    def schema(self) -> Schema:
        """Return patches, the thumbnail if there is one, and text tokens."""
        specs = self.masking.backbone.token_specs()
        codec = {"id": "patch_jpeg", "quality": self.quality}
        found = {"image": TokenSpec(positions=specs["image"].positions, shape=specs["image"].shape, codec=codec)}
        if self.thumbnail:
            found["thumbnail"] = TokenSpec(positions=1, shape=(self.thumbnail, self.thumbnail, 3), codec=codec)
        return Schema(found | ({"text": specs["text"]} if self.masking.keeps_text else {}))

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Score and mask; see `Recipe.make`."""
        masked = self.masking(images, texts, labels)
        found = []
        for row, image in enumerate(images):
            own = {"image": TokenSet.kept(masked.tokens.tokens["image"].values[row], masked.keep["image"][row])}
            if self.thumbnail:
                own["thumbnail"] = TokenSet.dense(resized(image, (self.thumbnail, self.thumbnail))[None])
            if self.masking.keeps_text:
                own["text"] = masked.words(row)
            found.append(own)
        return exemplars_of(found, labels, priorities)

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Return the batch as it is: its tokens are those of the backbone; see `Recipe.restore`."""
        return batch
