"""Random tokens are dropped."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from exmem.errors import SchemaError
from exmem.replay.augment.base import Augmentation, check_share
from exmem.tokens.tensors import TensorBatch, TokenTensors, packed, random_subset, uniform

__all__ = ["TokenDropout"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenDropout(Augmentation):
    """A share of the tokens of a modality is dropped at random; at least one stays where there was one.

    It makes exemplars differ from draw to draw, and a step cheaper.

    Parameters
    ----------
    ratio : float
        Share of the tokens that is dropped, protected ones not counted, 0..1; rounded.
    probability : float
        Chance of each exemplar, 0..1.
    modalities : sequence of str
        One or more names; one that a batch lacks is passed over.
    protected_ids : sequence of int
        Values of `text` that stay: the tokenizer's special tokens.
    """

    ratio: float = 0.5
    probability: float = 1.0
    modalities: Sequence[str] = ("image",)
    protected_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_share("ratio", self.ratio)
        check_share("probability", self.probability)
        if isinstance(self.modalities, str) or not self.modalities:
            raise SchemaError(f"modalities must be one or more names, got {self.modalities!r}")

    @override
    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        chosen = uniform(len(batch), generator=generator, device=batch.labels.device) < self.probability
        changed = {}
        for name in self.modalities:
            if name in batch.tokens:
                tokens = batch.tokens[name]
                lost = self._lost(tokens, is_text=name == "text", generator=generator) & chosen[:, None]
                changed[name] = packed(dataclasses.replace(tokens, valid=tokens.valid & ~lost))
        return batch.with_tokens(changed)

    def _lost(self, tokens: TokenTensors, *, is_text: bool, generator: torch.Generator) -> Tensor:
        candidates = tokens.valid
        if is_text and self.protected_ids:
            protected = torch.tensor(list(self.protected_ids), device=tokens.values.device)
            candidates = candidates & ~torch.isin(tokens.values, protected)
        counts = (candidates.sum(1) * self.ratio).round().long()
        counts = torch.minimum(counts, (tokens.valid.sum(1) - 1).clamp(min=0))
        return random_subset(candidates, counts, generator=generator)
