"""Random scores: the baseline that a clever scorer has to beat."""

import numpy as np

from exmem.masking.base import ScorableModel, ScoreMaps
from exmem.tensors import TensorBatch

__all__ = ["RandomScores"]


class RandomScores:
    """Uniform random scores; a second scorer of the same seed gives the same scores to the same batches.

    Parameters
    ----------
    seed : int
        Seed.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, model: ScorableModel, batch: TensorBatch) -> ScoreMaps:
        """Score a batch.

        Parameters
        ----------
        model : ScorableModel
            A backbone; only its token specifications are used.
        batch : TensorBatch
            Tokens to score.

        Returns
        -------
        ScoreMaps
            Scores in 0..1 of all modalities; text_to_image is random too.
        """
        scores, valid = {}, {}
        lengths = {name: int(spec.positions) for name, spec in model.token_specs().items()}
        for name, tokens in batch.tokens.items():
            there = np.zeros((len(batch), lengths[name]), np.bool_)
            keep = tokens.keep.cpu().numpy()
            there[np.nonzero(keep)[0], tokens.positions.cpu().numpy()[keep]] = True
            scores[name] = np.where(there, self._rng.random(there.shape, np.float32), np.float32(0))
            valid[name] = there
        cross = None
        if {"image", "text"} <= set(batch.tokens):
            cross = self._rng.random((len(batch), lengths["text"], lengths["image"]), np.float32)
        return ScoreMaps(scores, valid, cross)
