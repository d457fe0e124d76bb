"""Fills: what becomes of dropped image tokens at replay."""

from exmem.recipes.fills.base import Fill, FillContext
from exmem.recipes.fills.class_mean import class_means, fill_class_mean
from exmem.recipes.fills.drop import fill_drop
from exmem.recipes.fills.mask_token import fill_mask_token
from exmem.recipes.fills.mean import fill_mean
from exmem.recipes.fills.thumbnail import fill_thumbnail
from exmem.recipes.fills.zero import fill_zero
from exmem.registry import Registry

__all__ = [
    "FILLS",
    "Fill",
    "FillContext",
    "class_means",
    "fill_class_mean",
    "fill_drop",
    "fill_mask_token",
    "fill_mean",
    "fill_thumbnail",
    "fill_zero",
]

FILLS: Registry[Fill] = Registry(
    "fill",
    {
        "class_mean": fill_class_mean,
        "drop": fill_drop,
        "mask_token": fill_mask_token,
        "mean": fill_mean,
        "thumbnail": fill_thumbnail,
        "zero": fill_zero,
    },
)
"""Fills by name: what stands where tokens were dropped."""
