"""Random scores: the baseline that a clever scorer has to beat."""

import hashlib

import numpy as np

from exmem.masking.base import ScorableModel, ScoreMaps
from exmem.tensors import TensorBatch

__all__ = ["RandomScores"]


class RandomScores:
    """Uniform random scores; an example gets the same ones from the same seed, whenever and with whatever it is scored.

    Parameters
    ----------
    seed : int
        Seed.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

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
        rngs = [np.random.default_rng([self.seed, _fingerprint(batch, row)]) for row in range(len(batch))]
        for name, tokens in batch.tokens.items():
            there = np.zeros((len(batch), lengths[name]), np.bool_)
            keep = tokens.keep.cpu().numpy()
            there[np.nonzero(keep)[0], tokens.positions.cpu().numpy()[keep]] = True
            drawn = np.stack([rng.random(lengths[name], np.float32) for rng in rngs]) if rngs else np.float32(0)
            scores[name] = np.where(there, drawn, np.float32(0))
            valid[name] = there
        cross = None
        if {"image", "text"} <= set(batch.tokens):
            cross = np.zeros((len(batch), lengths["text"], lengths["image"]), np.float32)
            for row, rng in enumerate(rngs):
                cross[row] = rng.random(cross.shape[1:], np.float32)
        return ScoreMaps(scores, valid, cross)


def _fingerprint(batch: TensorBatch, row: int) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(batch.tokens):
        tokens = batch.tokens[name]
        keep = tokens.keep[row]
        for part in (tokens.positions[row][keep], tokens.values[row][keep]):
            digest.update(part.cpu().contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest(), "little")
