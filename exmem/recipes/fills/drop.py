"""Dropped tokens are left out."""

from exmem.recipes.fills.base import FillContext
from exmem.tokens.tensors import TensorBatch

__all__ = ["fill_drop"]


def fill_drop(batch: TensorBatch, context: FillContext) -> TensorBatch:
    """Leave dropped tokens out: only kept tokens enter the transformer, with their true positions."""
    return batch
