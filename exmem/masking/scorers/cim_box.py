"""The box around what is active (class-incremental exemplar compression, CVPR 2023)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.errors import SchemaError
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.base import FixedScorer, Scorer
from exmem.masking.scorers.cls_attention import ClsAttention
from exmem.tokens.tensors import TensorBatch

__all__ = ["CimBox", "box_scores"]


class CimBox(Scorer, FixedScorer):
    """Score image tokens inside the bounding box of what is active 1, those outside 0, plus a small share of attention.

    The map is the class-token attention, and texts are scored by it too. The share of attention, below 1 / (2 L),
    orders tokens without moving one across the edge of the box: `mean_threshold` keeps exactly the box, and `top_k`
    fills it by attention before it goes outside. A box that covers every token is the exception: no more than some of
    them can be above their mean.

    Parameters
    ----------
    threshold : float
        A token is active from this share of the range of the map on, 0..1 (a choice).
    layers
        As in `ClsAttention`.

    Notes
    -----
    After CIM (Luo et al. 2023, "Class-Incremental Exemplar Compression for Class-Incremental Learning", CVPR), whose
    box encloses the thresholded class activation map of a convolutional network and whose outside is down-sampled,
    not dropped. Attention instead of the activation map is our choice.
    """

    def __init__(self, *, threshold: float = 0.5, layers: Sequence[int] | None = (-1,)) -> None:
        if not 0 <= threshold <= 1:
            raise SchemaError(f"threshold must be in 0..1, got {threshold}")
        self.threshold: float = threshold
        self._attention = ClsAttention(layers=layers)

    @override
    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        maps = self._attention(model, batch, hidden=hidden)
        if "image" not in maps.scores:
            return maps
        boxes = box_scores(maps.scores["image"], maps.valid["image"], model.grid, threshold=self.threshold)
        return dataclasses.replace(maps, scores={**maps.scores, "image": boxes})

    @override
    def is_fixed(self, model: Backbone) -> bool:
        return self._attention.is_fixed(model)


def box_scores(
    scores: NDArray[np.float32], valid: NDArray[np.bool_], grid: tuple[int, int], *, threshold: float
) -> NDArray[np.float32]:
    """Return 1 inside the box around the active tokens and 0 outside, plus less than 1 / (2 L) by score, (B, L).

    `threshold` is the share of a row's range from which on a token is active; 0 where there is no token.
    """
    low = np.where(valid, scores, np.inf).min(1, keepdims=True)
    high = np.where(valid, scores, -np.inf).max(1, keepdims=True)
    share = np.where(valid, scores - low, 0) / np.where(high > low, high - low, 1)
    # A map without any range is active everywhere.
    active = (valid & ((share >= threshold) | (high <= low))).reshape(-1, *grid)
    box = _between(active.any(2))[:, :, None] & _between(active.any(1))[:, None, :]
    ordered = box.reshape(scores.shape) + share / (2 * scores.shape[1] + 1)
    return np.where(valid, ordered, 0).astype(np.float32)


def _between(active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """From the first to the last active place of each row."""
    begun, not_over = (np.logical_or.accumulate(direction, 1) for direction in (active, active[:, ::-1]))
    between: NDArray[np.bool_] = begun & not_over[:, ::-1]
    return between
