"""Lloyd's k-means in float32, quick for many rows of few values."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["k_means", "nearest"]

_ROUNDS = 12
_CHUNK = 2_048  # rows whose distances to 256 centres stay in the processor's cache


def nearest(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the index of the centre nearest to each row; the lower one where two are as near."""
    weights, lengths = np.ascontiguousarray(-2 * centres.T), (centres**2).sum(axis=1)
    found = np.empty(len(rows), np.uint16)
    for start in range(0, len(rows), _CHUNK):
        distances = rows[start : start + _CHUNK] @ weights
        distances += lengths
        found[start : start + _CHUNK] = distances.argmin(axis=1)
    return found


def k_means(rows: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return `count` centres of rows (K, width), at most K; one that nothing is nearest to moves to a random row."""
    centres = rows[rng.choice(len(rows), count, replace=False)]
    for _ in range(_ROUNDS):
        codes = nearest(rows, centres)
        counts = np.bincount(codes, minlength=count)
        sums = np.stack([np.bincount(codes, weights=column, minlength=count) for column in rows.T], axis=1)
        centres = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        centres[counts == 0] = rows[rng.choice(len(rows), int(np.count_nonzero(counts == 0)))]
    return centres
