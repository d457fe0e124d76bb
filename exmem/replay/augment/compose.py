"""One augmentation after the other."""

import dataclasses
from collections.abc import Sequence

import torch
from typing_extensions import override

from exmem.replay.augment.base import Augmentation
from exmem.tokens.tensors import TensorBatch

__all__ = ["Compose"]


@dataclasses.dataclass(frozen=True)
class Compose(Augmentation):
    """Apply augmentations in order.

    Parameters
    ----------
    augmentations : sequence of Augmentation
        First to last; with none, batches come back as they are.
    """

    augmentations: Sequence[Augmentation]

    @override
    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        for augmentation in self.augmentations:
            batch = augmentation(batch, generator=generator)
        return batch
