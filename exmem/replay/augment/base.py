"""The contract of an augmentation, and what several of them need."""

from typing import Protocol

import torch

from exmem.errors import SchemaError
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["Augmentation", "check_share", "images_of", "is_image"]


class Augmentation(Protocol):
    """Changes a batch at random.

    The kept tokens of a row stay in front, with increasing positions; padding stays zero; labels and extras stay; the
    batch that was given is not changed. A batch without the modality that an augmentation is about comes back as it is;
    one that needs pixels refuses hidden tokens.
    """

    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        """Augment a batch.

        Parameters
        ----------
        batch : TensorBatch
            Stored exemplars.
        generator : torch.Generator
            Source of all randomness.
        """


def check_share(name: str, value: float) -> None:
    """Refuse a probability or ratio outside 0..1 (SchemaError), by its name."""
    if not 0 <= value <= 1:
        raise SchemaError(f"{name} must be in 0..1, got {value}")


def images_of(batch: TensorBatch, name: str) -> dict[str, TokenTensors]:
    """Return the modalities of a batch that are pixels; SchemaError if its image is hidden tokens."""
    if batch.layer is not None:
        raise SchemaError(f"{name} changes pixels, and these are hidden tokens; leave it out")
    return {modality: tokens for modality, tokens in batch.tokens.items() if is_image(tokens)}


def is_image(tokens: TokenTensors) -> bool:
    """Say whether tokens are images or pieces of one, (B, K, h, w, 3) uint8: not ids or features."""
    return tokens.values.ndim == 5 and tokens.values.shape[-1] == 3 and tokens.values.dtype == torch.uint8
