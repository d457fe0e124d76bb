"""Centre scores: the baseline that needs no model."""

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.base import Scorer
from exmem.masking.scorers.dense import valid_tokens
from exmem.tokens.tensors import TensorBatch

__all__ = ["CentreScores", "centre_distances"]


class CentreScores(Scorer):
    """Score a patch by how near it is to the centre of the image, and a word by how early it stands (the lead).

    Scores are negative distances, in patches and in tokens. Attention between texts and images is uniform.
    """

    @override
    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        valid = valid_tokens(model, batch)
        scores = {
            name: np.where(is_token, -_distances(model, name, is_token.shape[1]), 0).astype(np.float32)
            for name, is_token in valid.items()
        }
        if not {"image", "text"} <= valid.keys():
            return ScoreMaps(scores, valid)
        pairs = (valid["text"][:, :, None] & valid["image"][:, None, :]).astype(np.float32)
        return ScoreMaps(scores, valid, _uniform(pairs), _uniform(pairs.transpose(0, 2, 1)))


def centre_distances(grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return the distance of each patch's centre to the centre of the grid, in patches, row by row."""
    rows, columns = (np.arange(length) - (length - 1) / 2 for length in grid)
    distances: NDArray[np.float64] = np.hypot(rows[:, None], columns[None, :]).ravel()
    return distances


def _distances(model: Backbone, name: str, length: int) -> NDArray[np.float64]:
    return centre_distances(model.grid) if name == "image" else np.arange(length, dtype=np.float64)


def _uniform(pairs: NDArray[np.float32]) -> NDArray[np.float32]:
    shares: NDArray[np.float32] = pairs / np.maximum(pairs.sum(2, keepdims=True), 1)
    return shares
