"""Same-class text exchange."""

import dataclasses

import torch
from typing_extensions import override

from exmem.replay.augment.base import Augmentation, check_share
from exmem.replay.augment.partners import class_partners
from exmem.tokens.tensors import TensorBatch

__all__ = ["TextExchange"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextExchange(Augmentation):
    """Pair the image tokens of an exemplar with the text tokens of another of the same class.

    (Exemplar masking, Lee et al. 2024, diversifies multimodal exemplars by an unpublished recipe; this is our choice.)

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
        if "text" not in batch.tokens:
            return batch
        rows = class_partners(batch.labels, probability=self.probability, generator=generator)
        return batch.with_tokens({"text": batch.tokens["text"].select(rows)})
