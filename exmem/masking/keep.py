"""Keep rules: what turns scores into `keep`.

Every rule keeps at least one token of a row that has any, gives ties to the lower position and refuses NaN.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError
from exmem.tokens.checks import as_array, real_number, whole_number

__all__ = ["cumulative", "fit_bytes", "keep_ratio", "mean_threshold", "top_k"]


def mean_threshold(
    scores: NDArray[np.float32], *, factor: float = 1.0, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Keep a token iff its score is above the mean of its row; the best is always kept.

    Parameters
    ----------
    scores : ndarray, shape (B, L), float32
        Importance without unit; higher is kept. NaN is refused.
    factor : float
        The threshold in multiples of the mean; 1 is the paper's rule.
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
    row of equal scores keeps its first token is a choice, and that `factor` counts from the lowest score of a row
    which has scores below 0.

    Examples
    --------
    >>> mean_threshold(np.array([[0.1, 0.6, 0.3], [1.0, 1.0, 1.0]], np.float32))
    array([[False,  True, False],
           [ True, False, False]])
    """
    scores, valid = _checked(scores, valid)
    factor = real_number(factor, "factor", error=InvalidExemplarError)
    count = valid.sum(axis=1, keepdims=True)
    lowest = np.where(valid, scores, 0).min(axis=1, keepdims=True, initial=0)  # below 0 as those of `centre`: shifted
    above = np.where(valid, scores - lowest, 0)
    mean = above.sum(axis=1, keepdims=True, dtype=np.float64) / np.maximum(count, 1)
    keep: NDArray[np.bool_] = valid & (above > factor * mean)
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
    scores, valid = _checked(scores, valid)
    most = whole_number(k, "k", least=1, most=scores.shape[1], error=InvalidExemplarError)
    return _best(scores, valid, np.full(len(scores), most))


def keep_ratio(
    scores: NDArray[np.float32], *, ratio: float, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Keep the best tokens of each row, a given share of them; never less than one.

    Parameters
    ----------
    scores : ndarray, shape (B, L), float32
        Importance without unit; higher is kept. NaN is refused.
    ratio : float
        Share of the row's tokens that is kept, above 0 and at most 1; the number is rounded, halves up (a choice: over
        rows of different length the share comes out on average).
    valid : ndarray, shape (B, L), bool, optional
        True where there is a token; everywhere when left out.

    Returns
    -------
    ndarray, shape (B, L), bool
        True where the token is kept.

    Raises
    ------
    InvalidExemplarError
        If `ratio` is outside 0..1, a score is NaN or the shapes differ.

    Examples
    --------
    >>> keep_ratio(np.array([[0.1, 0.6, 0.3, 0.2, 0.5]], np.float32), ratio=0.5)
    array([[False,  True,  True, False,  True]])
    """
    scores, valid = _checked(scores, valid)
    if not 0 < real_number(ratio, "ratio", error=InvalidExemplarError) <= 1:
        raise InvalidExemplarError(f"ratio must be above 0 and at most 1, got {ratio}")
    return _best(scores, valid, np.floor(ratio * valid.sum(axis=1) + 0.5).astype(np.int64))


def cumulative(
    scores: NDArray[np.float32], *, mass: float, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Keep the best tokens of each row until their scores sum to a given share of the row's sum; never less than one.

    Parameters
    ----------
    scores : ndarray, shape (B, L), float32
        Importance; higher is kept. NaN is refused. A row with negative scores is shifted so that its lowest is 0 (a
        choice: a share of a sum needs scores that are none below 0).
    mass : float
        Share of the sum, above 0 and at most 1.
    valid : ndarray, shape (B, L), bool, optional
        True where there is a token; everywhere when left out.

    Returns
    -------
    ndarray, shape (B, L), bool
        True where the token is kept.

    Raises
    ------
    InvalidExemplarError
        If `mass` is outside 0..1, a score is NaN or the shapes differ.

    Examples
    --------
    >>> cumulative(np.array([[0.1, 0.6, 0.3]], np.float32), mass=0.8)
    array([[False,  True,  True]])
    """
    scores, valid = _checked(scores, valid)
    if not 0 < real_number(mass, "mass", error=InvalidExemplarError) <= 1:
        raise InvalidExemplarError(f"mass must be above 0 and at most 1, got {mass}")
    lowest = np.where(valid, scores, 0).min(axis=1, keepdims=True, initial=0)
    gains = np.where(valid, scores.astype(np.float64) - lowest, 0)
    sums = np.cumsum(-np.sort(-gains, axis=1), axis=1)
    return _best(scores, valid, 1 + (sums < mass * sums[:, -1:]).sum(axis=1))


def fit_bytes(
    scores: NDArray[np.float32],
    *,
    max_bytes: int,
    encoded_bytes: Callable[[int, NDArray[np.bool_]], int],
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Keep as many of the best tokens of each row as fit a byte target after encoding; never less than one.

    What is kept fits and with the next best token it would not; or every token is kept; or one token is kept because
    not even one fits.

    Parameters
    ----------
    scores : ndarray, shape (B, L), float32
        Importance without unit; higher is kept. NaN is refused.
    max_bytes : int
        Most bytes of a row's kept tokens.
    encoded_bytes : callable
        Takes the number of a row and its `keep`, shape (L,), and returns the bytes of those tokens, encoded.
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
    Bisection on the number of tokens over true sizes: about log2 L + 2 encodings a row. Where one token more makes a
    payload smaller, there can be more than one such number; any of them may be found.

    Examples
    --------
    >>> scores = np.array([[3.0, 1.0, 2.0]], np.float32)
    >>> fit_bytes(scores, max_bytes=25, encoded_bytes=lambda row, keep: 10 * keep.sum())
    array([[ True, False,  True]])
    """
    scores, valid = _checked(scores, valid)
    whole_number(max_bytes, "max_bytes", error=InvalidExemplarError)
    ranks = _ranks(scores, valid)
    keep = np.zeros(scores.shape, np.bool_)
    for row in range(len(scores)):
        keep[row] = _most_that_fit(ranks[row], valid[row], partial(encoded_bytes, row), max_bytes)
    return keep


def _most_that_fit(
    ranks: NDArray[np.int64], valid: NDArray[np.bool_], size: Callable[[NDArray[np.bool_]], int], max_bytes: int
) -> NDArray[np.bool_]:
    def best(count: int) -> NDArray[np.bool_]:
        return valid & (ranks < count)

    low, high = 1, int(valid.sum())
    if high <= 1 or size(best(high)) <= max_bytes:
        return valid
    if size(best(low)) > max_bytes:
        return best(low)
    while high - low > 1:  # `low` fits, `high` does not
        middle = (low + high) // 2
        low, high = (middle, high) if size(best(middle)) <= max_bytes else (low, middle)
    return best(low)


def _ranks(scores: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank of each token in its row, 0 for the best; ties by position, what is no token last."""
    order = np.argsort(np.where(valid, -scores.astype(np.float64), np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1)


def _best(scores: NDArray[np.float32], valid: NDArray[np.bool_], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Keep the best tokens of each row, `counts` (B,) of them but at least one."""
    return valid & (_ranks(scores, valid) < np.maximum(counts, 1)[:, None])


def _checked(given: Any, valid: NDArray[np.bool_] | None) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Return scores (B, L) as an array, and where there is a token; tensors are taken, NaN is refused."""
    scores = as_array(given)
    if scores.dtype.kind not in "biuf":
        raise InvalidExemplarError(f"scores: expected numbers, got {scores.dtype}")
    valid = None if valid is None else as_array(valid)
    if scores.ndim != 2 or (valid is not None and valid.shape != scores.shape):
        raise InvalidExemplarError(
            f"expected scores (B, L) and valid of the same shape, got {scores.shape} and "
            f"{None if valid is None else valid.shape}"
        )
    valid = np.ones(scores.shape, np.bool_) if valid is None else valid
    if np.isnan(scores[valid]).any():
        row = int(np.nonzero(np.isnan(np.where(valid, scores, 0)))[0][0])
        raise InvalidExemplarError(f"scores of row {row} contain NaN; check the model that made them")
    return scores, valid
