"""Attention rollout (Abnar & Zuidema 2020)."""

from collections.abc import Sequence

import torch
from typing_extensions import override

from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.attention_pass import carry_down, check_layers, observe
from exmem.masking.scorers.base import Scorer
from exmem.tokens.tensors import TensorBatch

__all__ = ["AttentionRollout"]


class AttentionRollout(Scorer):
    """Score a token by what reaches the class token through the attention of all layers, residual connections counted.

    Parameters
    ----------
    layers : sequence of int or None
        Layers that take part, as in `ClsAttention`; all by default, as in the paper.

    Notes
    -----
    Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3: the class row of the product of
    0.5 A + 0.5 I over the layers, A the mean over the heads. The row is carried down one layer at a time (`carry_down`
    says why that is the same), so the maps of all layers are never there together. The probe of an attention pooling is
    no token of the sequence, so its layer adds no identity (a choice).
    """

    def __init__(self, *, layers: Sequence[int] | None = None) -> None:
        self.layers: tuple[int, ...] | None = check_layers(layers)

    @override
    @torch.inference_mode()
    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        seen = observe(model, batch, self.layers, hidden=hidden)
        return seen.maps(
            carry_down(seen, lambda layer: seen.attention(layer).mean(1), lambda vector, read: (vector + read) / 2)
        )
