"""Attention weighted by its gradient (Chefer et al. 2021)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from exmem.backbones.attention import split_heads
from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.errors import SchemaError
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.attention_pass import carry_down, check_layers, observe
from exmem.masking.scorers.base import Scorer
from exmem.tokens.tensors import TensorBatch

__all__ = ["GradAttention", "Objective"]

Objective = Callable[[Tensor, Tensor], Tensor]
"""Takes features (B, F) and labels (B,) and returns what is to be explained, summed over the rows."""


class GradAttention(Scorer):
    """Score a token by its relevance for an objective: attention times gradient, followed through the layers.

    Parameters
    ----------
    layers : sequence of int or None
        Layers that take part, as in `ClsAttention`; all by default, as in the paper. The graph is recorded from the
        lowest of them on, so a few top layers cost less.
    objective : callable, optional
        Takes features (B, F) and labels (B,) and returns a scalar: the sum over the rows of what is to be explained,
        such as the logit of the true class. When left out, half the squared norm of the features (a choice, for models
        without a classifier).

    Notes
    -----
    Chefer et al. 2021, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers" (ICCV), equations 5 and 6 for self-attention: R starts as the identity, each layer adds A' R with
    A' = mean over the heads of relu(dY/dA * A), and the row of the class token in R is the relevance. That row of the
    product of I + A' is carried down one layer at a time (`carry_down`).

    A head reads A V, so dY/dA = dY/d(A V) V^T: gradients of what the heads have read are enough, and no attention map
    is part of the graph. Works under `torch.inference_mode` of the caller and with frozen weights, and leaves no
    gradient behind. One forward and one backward pass.
    """

    def __init__(self, *, layers: Sequence[int] | None = None, objective: Objective | None = None) -> None:
        self.layers: tuple[int, ...] | None = check_layers(layers)
        self.objective: Objective = objective or _half_squared_norm

    @override
    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        with torch.inference_mode(mode=False), torch.enable_grad():
            seen = observe(model, batch, self.layers, ("query", "key", "value", "context"), gradient=True)
            contexts = [seen.captured[layer].state("context") for layer in seen.layers]
            target = self.objective(seen.features, batch.labels.to(seen.features.device))
            if target.ndim or not target.requires_grad:
                raise SchemaError(
                    f"objective: expected a scalar that depends on the features, got shape {tuple(target.shape)}"
                    f"{'' if target.requires_grad else ' without gradient'}; return a sum over the rows"
                )
            gradients = dict(zip(seen.layers, torch.autograd.grad(target, contexts), strict=True))

        def relevance(layer: int) -> Tensor:
            captured = seen.captured[layer]
            slope = split_heads(gradients[layer], captured.num_heads) @ captured.heads("value").transpose(2, 3)
            return (slope * seen.attention(layer)).clamp(min=0).mean(1)

        with torch.inference_mode():
            return seen.maps(carry_down(seen, relevance, lambda vector, read: vector + read))


def _half_squared_norm(features: Tensor, labels: Tensor) -> Tensor:
    return features.square().sum() / 2
