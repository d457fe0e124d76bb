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

    Parameters
    ----------
    batch : TensorBatch
        Stored exemplars.
    context : FillContext
        The dense length and the means of `class_means`.

    Returns
    -------
    TensorBatch
        L image tokens per row, all of them kept.

    Raises
    ------
    SchemaError
        If the mean of a class is not known, or image tokens are no patches.
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
    """Return the mean colour of the kept patches of each class; black where none was kept.

    Parameters
    ----------
    batches : iterable of TensorBatch
        All exemplars of a memory; batches without `image` say nothing.

    Returns
    -------
    mapping of int to Tensor, shape (3,), float32
        Label -> mean colour, each pixel counted once.
    """
    sums: dict[int, Tensor] = {}
    for batch in batches:
        if "image" not in batch.tokens:
            continue
        totals = torch.cat(colour_sums(batch.tokens["image"]), 1)
        for label, total in zip(batch.labels.tolist(), totals, strict=True):
            sums[label] = sums.get(label, 0) + total
    return {label: (total[:3] / total[3].clamp(min=1)).float() for label, total in sums.items()}
