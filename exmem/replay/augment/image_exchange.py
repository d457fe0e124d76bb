"""Same-class image exchange."""

import dataclasses

import torch
from typing_extensions import override

from exmem.replay.augment.base import Augmentation, check_share
from exmem.replay.augment.partners import class_partners
from exmem.tokens.tensors import TensorBatch

__all__ = ["ImageExchange"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageExchange(Augmentation):
    """An exemplar takes the image tokens of another of its class.

    All modalities but `text` go together, so that the scales of one image stay together. Labels and extra fields stay
    where they are.

    Parameters
    ----------
    probability : float
        Chance of each exemplar, 0..1.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_share("probability", self.probability)

    @override
    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        images = {name: tokens for name, tokens in batch.tokens.items() if name != "text"}
        if not images:
            return batch
        rows = class_partners(batch.labels, probability=self.probability, generator=generator)
        return batch.with_tokens({name: tokens.select(rows) for name, tokens in images.items()})
