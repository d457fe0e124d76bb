"""Class-token attention without repetition."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.attention_pass import check_layers, observe
from exmem.masking.scorers.base import Scorer
from exmem.masking.scorers.dense import place
from exmem.tokens.tensors import TensorBatch

__all__ = ["ClsDiverse", "diverse_gains"]


class ClsDiverse(Scorer):
    """Score a token by the class-token attention that it adds to tokens that are chosen before it.

    Within a modality, tokens are chosen one after the other, each time the one with the largest gain: its class-token
    attention times one minus the largest cosine similarity of its key to the keys of those chosen before. The gain at
    the moment of choice is the score. So a smooth background scores for its first patch, not for each one.

    Parameters
    ----------
    layers
        As in `ClsAttention`. The keys are those of the last layer (a choice).

    Notes
    -----
    A choice of ours, after maximal marginal relevance (Carbonell & Goldstein 1998), which subtracts where we multiply.
    Text that the last layer does not hold has no keys there and keeps its scores as they are.
    """

    def __init__(self, *, layers: Sequence[int] | None = (-1,)) -> None:
        self.layers: tuple[int, ...] | None = check_layers(layers)

    @override
    @torch.inference_mode()
    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        seen = observe(model, batch, self.layers, hidden=hidden)
        maps = seen.maps(seen.class_scores())
        keys, layout = seen.captured[seen.last].state("key").float().cpu().numpy(), seen.layout(seen.last)
        scores = dict(maps.scores)
        for name, places in (("image", layout.image), ("text", layout.text)):
            if places is not None and name in scores:  # a restricted model has places for what it is not given
                dense = place(keys[:, places], batch.tokens.get(name), scores[name].shape[1])
                scores[name] = diverse_gains(scores[name], dense, maps.valid[name])
        return dataclasses.replace(maps, scores=scores)


def diverse_gains(
    scores: NDArray[np.float32], keys: NDArray[np.float32], valid: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Choose tokens greedily by score times novelty and return what each added when it was chosen, (B, L); O(B L^2 D).

    Scores are 0 or more; negative cosines of keys (B, L, D) count as 0. Gains fall in the order of choice, ties go to
    the lower position.
    """
    units = keys / np.maximum(np.linalg.norm(keys, axis=2, keepdims=True), 1e-12)
    novelty = 1 - np.clip(units @ units.transpose(0, 2, 1), 0, 1)
    gains, left = np.where(valid, scores, 0), valid.copy()
    out, rows = np.zeros_like(scores), np.arange(len(scores))
    least = np.ones_like(scores)
    for _ in range(int(valid.sum(1).max(initial=0))):
        best = np.where(left, gains, -1).argmax(1)
        some = left[rows, best]
        out[rows[some], best[some]] = gains[rows[some], best[some]]
        left[rows, best] = False
        least = np.minimum(least, novelty[rows, best])
        gains = scores * least
    return out
