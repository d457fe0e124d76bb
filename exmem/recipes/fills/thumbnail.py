"""A tiny whole image lies under the kept patches."""

import dataclasses

from exmem.errors import SchemaError
from exmem.recipes.fills.base import FillContext, check_patches, filled
from exmem.tokens.patches import cut_patches
from exmem.tokens.tensors import TensorBatch, upsampled

__all__ = ["fill_thumbnail"]


def fill_thumbnail(batch: TensorBatch, context: FillContext) -> TensorBatch:
    """Put the exemplar's thumbnail, scaled up, where patches were dropped; black where it has none.

    The thumbnail is a modality of one token, stored with the exemplar and paid for like everything else that is stored;
    it is not in the batch afterwards. SchemaError if there is no modality `thumbnail`, the grid is not known, or image
    tokens are no patches.
    """
    image, thumbnail = batch.tokens.get("image"), batch.tokens.get("thumbnail")
    if image is None:
        return batch
    if thumbnail is None:
        raise SchemaError(
            "fill 'thumbnail' needs a modality 'thumbnail', got "
            f"{sorted(batch.tokens)}; store one: TokenSpec(positions=1, shape=(t, t, 3), codec='patch_jpeg') in the "
            "schema, and the whole image at t x t pixels as its only token in each exemplar"
        )
    check_patches(image)
    rows, columns = context.rows_and_columns()
    patch = image.values.shape[2]
    whole = thumbnail.values.new_zeros(len(batch), 1, *thumbnail.values.shape[2:])
    whole[:, : thumbnail.values.shape[1]] = thumbnail.values  # a batch in which no row has one is 0 wide
    background = cut_patches(upsampled(whole, (rows * patch, columns * patch))[:, 0], patch)
    others = {name: tokens for name, tokens in batch.tokens.items() if name != "thumbnail"}
    return dataclasses.replace(batch, tokens={**others, "image": filled(image, background)})
