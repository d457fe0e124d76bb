"""Dropped tokens get the mean colour of the class."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from exmem.errors import SchemaError
from exmem.recipes.fills.base import FillContext, colour_sums
from exmem.recipes.fills.mean import over_colour
from exmem.tokens.tensors import TensorBatch

__all__ = ["class_means", "fill_class_mean"]


def fill_class_mean(batch: TensorBatch, context: FillContext) -> TensorBatch:
    """Put the mean colour of the class, over all its exemplars in the memory, where patches were dropped.

    SchemaError if the mean of a class is not known (`class_means` measures them), or image tokens are no patches.
    """
    image = batch.tokens.get("image")
    if image is None:
        return batch
    means = context.class_means or {}
    labels = batch.labels.tolist()
    missing = sorted(set(labels) - set(means))
    if missing:
        raise SchemaError(f"fill 'class_mean' knows no mean colour of the classes {missing}; compute class_means first")
    colours = torch.stack([means[label] for label in labels]).to(image.values.device)
    return batch.with_tokens({"image": over_colour(image, colours, context.length)})


def class_means(batches: Iterable[TensorBatch]) -> Mapping[int, Tensor]:
    """Return the mean colour (3,) of the kept pixels of each class, all alike; black where none was kept.

    The batches are all exemplars of a memory; those without `image` say nothing.
    """
    sums: dict[int, Tensor] = {}
    for batch in batches:
        if "image" not in batch.tokens:
            continue
        totals = torch.cat(colour_sums(batch.tokens["image"]), 1)
        for label, total in zip(batch.labels.tolist(), totals, strict=True):
            sums[label] = sums.get(label, 0) + total
    return {label: (total[:3] / total[3].clamp(min=1)).float() for label, total in sums.items()}
