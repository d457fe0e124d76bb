"""Same-class text exchange."""

import dataclasses

import torch

from exmem.augment.base import check_share, with_tokens
from exmem.augment.partners import class_partners
from exmem.tensors import TensorBatch

__all__ = ["TextExchange", "exchange_text", "text_partners"]

text_partners = class_partners  # for streams, whose rows exchange what was embedded of the text


def exchange_text(batch: TensorBatch, *, probability: float, generator: torch.Generator) -> TensorBatch:
    """Pair the image tokens of an exemplar with the text tokens of another of the same class.

    Parameters
    ----------
    batch : TensorBatch
        Exemplars; a batch without `text` is returned as it is.
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
    if "text" not in batch.tokens:
        return batch
    rows = class_partners(batch.labels, probability=probability, generator=generator)
    return with_tokens(batch, {"text": batch.tokens["text"].select(rows)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextExchange:
    """An exemplar takes the text tokens of another of its class; see `exchange_text`.

    Parameters
    ----------
    probability : float
        Chance of each exemplar, 0..1.

    Raises
    ------
    SchemaError
        If the probability is outside 0..1.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_share("probability", self.probability)

    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        """Exchange texts.

        Parameters
        ----------
        batch : TensorBatch
            Exemplars.
        generator : torch.Generator
            Source of randomness.

        Returns
        -------
        TensorBatch
            The batch with exchanged texts.
        """
        return exchange_text(batch, probability=self.probability, generator=generator)
