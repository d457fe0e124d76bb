"""Partners of the same class, from whom an exemplar takes tokens."""

import torch
from torch import Tensor

from exmem.replay.augment.base import check_share
from exmem.tokens.tensors import uniform

__all__ = ["class_partners"]


def class_partners(labels: Tensor, *, probability: float, generator: torch.Generator) -> Tensor:
    """Choose for each row another row of the same class; the row itself where there is none.

    Each row draws for itself, so one partner may serve several rows.

    Parameters
    ----------
    labels : Tensor, shape (B,), int64
        Classes of the rows.
    probability : float
        Chance of each row to get a partner, 0..1; a row that gets none is its own.
    generator : torch.Generator
        Source of O(B^2) numbers.
    """
    check_share("probability", probability)
    count = len(labels)
    chosen = uniform(count, generator=generator, device=labels.device) < probability
    draws = uniform(count, count, generator=generator, device=labels.device)
    rows = torch.arange(count, device=labels.device)
    others = (labels[:, None] == labels) & (rows[:, None] != rows)
    picks = draws.masked_fill(~others, -1.0).argmax(1)
    return torch.where(chosen & others.any(1), picks, rows)
