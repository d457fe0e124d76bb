"""Dropped tokens become the backbone's mask token."""

import dataclasses

import torch

from exmem.recipes.fills.base import FillContext
from exmem.recipes.fills.zero import fill_zero
from exmem.tokens.tensors import TensorBatch

__all__ = ["fill_mask_token"]


def fill_mask_token(batch: TensorBatch, context: FillContext) -> TensorBatch:
    """Put tokens of unknown value where tokens were dropped: the backbone embeds its mask token there."""
    if "image" not in batch.tokens:
        return batch
    stored = batch.tokens["image"]
    dense = fill_zero(batch, context).tokens["image"]
    rows, places = stored.valid.nonzero(as_tuple=True)
    unknown = torch.ones_like(dense.valid)
    unknown[rows, stored.positions[rows, places]] = False
    if dense.unknown is not None:
        unknown |= dense.unknown
    return batch.with_tokens({"image": dataclasses.replace(dense, unknown=unknown)})
