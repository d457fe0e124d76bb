"""Random scores: the baseline that a clever scorer has to beat."""

import hashlib

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.base import Scorer
from exmem.masking.scorers.dense import valid_tokens
from exmem.tokens.checks import whole_number
from exmem.tokens.tensors import TensorBatch

__all__ = ["RandomScores"]


class RandomScores(Scorer):
    """Uniform random scores; an example gets the same ones from the same seed, whenever and with whatever it is scored.

    Parameters
    ----------
    seed : int
        Another seed gives other scores.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed: int = whole_number(seed, "seed")

    @override
    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        valid = valid_tokens(model, batch)
        rngs = [np.random.default_rng([self.seed, _fingerprint(batch, row)]) for row in range(len(batch))]
        scores = {name: _draw(rngs, is_token) for name, is_token in valid.items()}
        if not {"image", "text"} <= valid.keys():
            return ScoreMaps(scores, valid)
        pairs = valid["text"][:, :, None] & valid["image"][:, None, :]
        return ScoreMaps(scores, valid, _draw(rngs, pairs), _draw(rngs, pairs.transpose(0, 2, 1)))


def _draw(rngs: list[np.random.Generator], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    out = np.zeros(valid.shape, np.float32)
    for row, rng in enumerate(rngs):
        out[row] = rng.random(valid.shape[1:], np.float32)
    return np.where(valid, out, np.float32(0))


def _fingerprint(batch: TensorBatch, row: int) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(batch.tokens):
        tokens = batch.tokens[name]
        valid = tokens.valid[row]
        order = tokens.positions[row][valid].argsort()
        for tensor in (tokens.positions[row][valid][order], tokens.values[row][valid][order]):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest(), "little")
