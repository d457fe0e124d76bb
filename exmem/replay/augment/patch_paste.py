"""Patches of one exemplar in the places that another one of its class has dropped."""

import dataclasses

import torch
from torch import Tensor
from typing_extensions import override

from exmem.errors import SchemaError
from exmem.replay.augment.base import Augmentation, check_share
from exmem.replay.augment.partners import class_partners
from exmem.tokens.tensors import TensorBatch, TokenTensors, packed, random_subset

__all__ = ["PatchPaste"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchPaste(Augmentation):
    """Tokens of another exemplar of the same class are pasted where this one has none; its own tokens win.

    It works on tokens that were dropped: after a dense fill there is no place left. Tokens of different modalities are
    not compared: at a place that this exemplar holds at one scale only, the partner may give another scale.

    Parameters
    ----------
    probability : float
        Chance of each exemplar to get tokens, 0..1.
    ratio : float
        Share of the tokens that could be pasted, 0..1, drawn at random; rounded.
    most : int, optional
        At most so many tokens are pasted, 0 or more; no bound when left out.
    modality : str
        Where tokens are pasted.
    """

    probability: float = 0.5
    ratio: float = 1.0
    most: int | None = None
    modality: str = "image"

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        check_share("ratio", self.ratio)
        if self.most is not None and self.most < 0:
            raise SchemaError(f"most must be 0 or more, got {self.most}")

    @override
    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        if self.modality not in batch.tokens:
            return batch
        rows = class_partners(batch.labels, probability=self.probability, generator=generator)
        stored = batch.tokens[self.modality]
        partner = stored.select(rows)
        free = partner.valid & ~_is_held(stored, partner.positions)
        if partner.unknown is not None:
            free &= ~partner.unknown
        counts = (free.sum(1) * self.ratio).round().long()
        if self.most is not None:
            counts = counts.clamp(max=self.most)
        pasted = random_subset(free, counts, generator=generator)
        unknown = None if stored.unknown is None else torch.cat([stored.unknown, torch.zeros_like(pasted)], 1)
        both = TokenTensors(
            torch.cat([stored.values, partner.values], 1),
            torch.cat([stored.positions, partner.positions], 1),
            torch.cat([stored.valid, pasted], 1),
            unknown,
        )
        return batch.with_tokens({self.modality: packed(both)})


def _is_held(tokens: TokenTensors, positions: Tensor) -> Tensor:
    """Say where a row holds a token at a position, (B, K) bool."""
    if positions.shape[1] == 0:
        return torch.zeros_like(positions, dtype=torch.bool)
    rows, places = tokens.valid.nonzero(as_tuple=True)
    length = int(torch.maximum(positions.max(), tokens.positions.max())) + 1
    held = torch.zeros(len(positions), length, dtype=torch.bool, device=positions.device)
    held[rows, tokens.positions[rows, places]] = True
    return held.gather(1, positions)
