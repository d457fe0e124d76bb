"""Class-token attention (exemplar masking, Lee et al. 2024)."""

from collections.abc import Sequence

import torch
from typing_extensions import override

from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.attention_pass import check_layers, chosen_layers, observe
from exmem.masking.scorers.base import FixedScorer, Scorer
from exmem.tokens.tensors import TensorBatch

__all__ = ["ClsAttention"]


class ClsAttention(Scorer, FixedScorer):
    """Score a token by the attention that the class token pays to it, mean over the heads and over chosen layers.

    A modality is scored by those of the layers that hold it, by the last layer where none does: the lower layers of
    some backbones hold no text. (Known from the paper: the score is the class-token attention. Layer and head reduction
    are choices.) It costs one forward pass, and the attention of one query in each of the layers.

    Parameters
    ----------
    layers : sequence of int or None
        One or more layers; negative ones count from the last, None stands for all.
    """

    def __init__(self, *, layers: Sequence[int] | None = (-1,)) -> None:
        self.layers: tuple[int, ...] | None = check_layers(layers)

    @override
    @torch.inference_mode()
    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        seen = observe(model, batch, self.layers, hidden=hidden)
        return seen.maps(seen.class_scores())

    @override
    def is_fixed(self, model: Backbone) -> bool:
        return max(chosen_layers(self.layers, len(model.attention_taps()))) < model.first_tuned_layer
