"""Dropped tokens get the mean colour of the exemplar."""

from torch import Tensor

from exmem.recipes.fills.base import FillContext, check_patches, colour_sums, filled
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["fill_mean", "over_colour"]


def fill_mean(batch: TensorBatch, context: FillContext) -> TensorBatch:
    """Put the mean colour of an exemplar's kept patches where patches were dropped; black where none was kept.

    SchemaError if image tokens are no patches.
    """
    image = batch.tokens.get("image")
    if image is None:
        return batch
    sums, pixels = colour_sums(image)
    return batch.with_tokens({"image": over_colour(image, sums / pixels.clamp(min=1), context.length)})


def over_colour(image: TokenTensors, colours: Tensor, length: int) -> TokenTensors:
    """Put kept patches over one colour per row, (B, 3) of 0..255, rounded; SchemaError if the tokens are no patches."""
    check_patches(image)
    plain = colours.round().to(image.values.dtype)[:, None, None, None, :]
    return filled(image, plain.repeat(1, length, *image.values.shape[2:4], 1))
