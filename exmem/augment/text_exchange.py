"""Same-class text exchange."""

import torch
from torch import Tensor

from exmem.errors import SchemaError
from exmem.tensors import TensorBatch

__all__ = ["exchange_text", "text_partners"]


def text_partners(labels: Tensor, *, probability: float, generator: torch.Generator) -> Tensor:
    """Choose for each row another row of the same class whose text it takes.

    Parameters
    ----------
    labels : Tensor, shape (B,), int64
        Classes.
    probability : float
        Chance of each row to exchange, 0..1.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor, shape (B,), int64
        Row whose text is taken; the row itself where nothing is exchanged or its class has no other row.

    Raises
    ------
    SchemaError
        If the probability is outside 0..1.
    """
    if not 0 <= probability <= 1:
        raise SchemaError(f"probability must be in 0..1, got {probability}")
    count = len(labels)
    partners = torch.arange(count)
    chosen = torch.rand(count, generator=generator) < probability
    picks = torch.rand(count, generator=generator)
    classes = labels.cpu()
    for row in chosen.nonzero().flatten().tolist():
        others = ((classes == classes[row]) & (torch.arange(count) != row)).nonzero().flatten()
        if len(others):
            partners[row] = others[int(picks[row] * len(others))]
    return partners.to(labels.device)


def exchange_text(batch: TensorBatch, *, probability: float, generator: torch.Generator) -> TensorBatch:
    """Pair the image tokens of an exemplar with the text tokens of another of the same class.

    Parameters
    ----------
    batch : TensorBatch
        Exemplars with a modality `text`.
    probability : float
        Chance of each row to exchange, 0..1; 0 turns it off.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    TensorBatch
        The batch with exchanged texts; everything else is as it was.

    Notes
    -----
    Exemplar masking (Lee et al. 2024) diversifies multimodal exemplars by an unpublished recipe; this is our choice.
    """
    rows = text_partners(batch.labels, probability=probability, generator=generator)
    tokens = dict(batch.tokens)
    tokens["text"] = tokens["text"].select(rows)
    return TensorBatch(tokens, batch.labels, batch.extras)
