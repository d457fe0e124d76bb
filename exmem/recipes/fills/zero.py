"""Dropped tokens become black."""

from exmem.recipes.fills.base import FillContext, filled
from exmem.tokens.tensors import TensorBatch

__all__ = ["fill_zero"]


def fill_zero(batch: TensorBatch, context: FillContext) -> TensorBatch:
    """Put zeros (black) where tokens were dropped: the sequence is dense again."""
    image = batch.tokens.get("image")
    if image is None:
        return batch
    black = image.values.new_zeros(len(batch), context.length, *image.values.shape[2:])
    return batch.with_tokens({"image": filled(image, black)})
