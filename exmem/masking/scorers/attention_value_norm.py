"""Class-token attention weighted by the norm of what it reads (Kobayashi et al. 2020)."""

from collections.abc import Sequence

import torch
from typing_extensions import override

from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.attention_pass import check_layers, chosen_layers, observe
from exmem.masking.scorers.base import FixedScorer, Scorer
from exmem.tokens.tensors import TensorBatch

__all__ = ["AttentionValueNorm"]


class AttentionValueNorm(Scorer, FixedScorer):
    """Score a token by the attention of the class token times the norm of the token's value vector, head by head.

    Tokens that draw attention without giving anything (attention sinks) have small values, so they score low here.

    Parameters
    ----------
    layers
        As in `ClsAttention`.

    Notes
    -----
    Kobayashi et al. 2020, "Attention is Not Only a Weight", section 3, weigh by the norm of the value after the output
    projection; here it is the norm of the value itself, mean over the heads (a choice: no product per head is needed).
    """

    def __init__(self, *, layers: Sequence[int] | None = (-1,)) -> None:
        self.layers: tuple[int, ...] | None = check_layers(layers)

    @override
    @torch.inference_mode()
    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        seen = observe(model, batch, self.layers, ("query", "key", "value"), hidden=hidden)
        return seen.maps(
            seen.by_modality(
                {
                    layer: (seen.query_attention(layer) * seen.captured[layer].heads("value").norm(dim=-1)).mean(1)
                    for layer in seen.layers
                }
            )
        )

    @override
    def is_fixed(self, model: Backbone) -> bool:
        return max(chosen_layers(self.layers, len(model.attention_taps()))) < model.first_tuned_layer
