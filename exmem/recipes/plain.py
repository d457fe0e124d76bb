"""Images without a backbone: for those who have a CNN, or a model of their own."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.tokens import PaddedTokens, Schema, TokenBatch, TokenSpec
from exmem.tokens.patches import cut_patches

__all__ = ["PlainImages"]


class PlainImages:
    """What a recipe is bound to where no backbone scores: images cut into patches, and no texts.

    Scorers that look at places and pixels alone go with it (`centre`, `random`, your own), and recipes that score
    nothing.

    Parameters
    ----------
    size : int or tuple of int
        Side of square images in pixels, or height and width.
    patch : int
        Side of a patch, which divides both.

    Raises
    ------
    SchemaError
        If it does not.
    """

    has_mask_token = False
    special_ids: frozenset[int] = frozenset()
    feature_dim = 0

    def __init__(self, *, size: int | tuple[int, int], patch: int) -> None:
        self._specs = dict(Schema.images(size=size, patch=patch).modalities)
        self.patch: int = patch
        self.grid: tuple[int, int] = self._specs["image"].image_grid()

    def token_specs(self) -> dict[str, TokenSpec]:
        """Return how patches look."""
        return self._specs

    def tokens(self, images: NDArray[np.uint8], texts: Sequence[str]) -> TokenBatch:
        """Cut images into patches.

        Parameters
        ----------
        images : ndarray, shape (B, H, W, 3), uint8
            Images of the size.
        texts : sequence of str
            Ignored.

        Returns
        -------
        TokenBatch
            All patches of `image`; labels are 0.
        """
        patches = cut_patches(images, self.patch)
        positions = np.broadcast_to(np.arange(patches.shape[1]), patches.shape[:2]).copy()
        valid = np.ones(patches.shape[:2], np.bool_)
        return TokenBatch({"image": PaddedTokens(patches, positions, valid)}, np.zeros(len(images), np.int64))
