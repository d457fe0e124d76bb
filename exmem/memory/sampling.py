"""Which exemplars a memory draws, by seed."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError
from exmem.tokens.checks import choice, whole_number

__all__ = ["draw"]

_SAMPLERS = ("balanced", "uniform")
_MOST_DRAWN = 2**24  # a choice: one batch in RAM, and far below what would exhaust it by its indices alone


def draw(
    labels: NDArray[np.int64], n: int, *, sampler: Literal["uniform", "balanced"] = "uniform", seed: int = 0
) -> NDArray[np.int64]:
    """Draw `n` exemplars; none comes again before all others of its kind came as often.

    Parameters
    ----------
    labels : ndarray, shape (N,), int64
        Class of each exemplar.
    n : int
        How many to draw, 0..2^24; beyond N, one random order follows the other.
    sampler : {"uniform", "balanced"}
        Each exemplar equally often, or each class equally often and within a class each exemplar equally often.
    seed : int
        Seed, 0..2^63 - 1; the same labels and seed give the same draw.

    Returns
    -------
    ndarray, shape (n,), int64
        Indices into `labels`, in random order.

    Raises
    ------
    SchemaError
        If the sampler is unknown, `n` or the seed out of range, or there is nothing to draw from.

    Notes
    -----
    O(n) for `uniform`, O(n + N log N) for `balanced`.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 0, 7])
    >>> sorted(draw(labels, 6).tolist())
    [0, 1, 2, 3, 4, 5]
    >>> labels[draw(labels, 6, sampler="balanced")].tolist().count(7)
    3
    """
    choice(sampler, "sampler", _SAMPLERS)
    n, seed = whole_number(n, "the number to draw", most=_MOST_DRAWN), whole_number(seed, "the seed")
    if n == 0:
        return np.zeros(0, np.int64)
    if len(labels) == 0:
        raise SchemaError("the memory holds no exemplar to draw; add some first")
    rng = np.random.default_rng(seed)
    return _in_turn(len(labels), n, rng) if sampler == "uniform" else _balanced(labels, n, rng)


def _balanced(labels: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    least, most = int(labels.min()), int(labels.max())
    if most - least < 2**16:
        labels = (labels - least).astype(np.uint16)  # sorted in O(N)
    # Stable, so that the order within a class, and with it the draw, is the same on every machine.
    by_class = np.argsort(labels, kind="stable")
    ordered = labels[by_class]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(starts, append=len(labels))
    turns = _in_turn(len(starts), n, rng)
    drawn = np.empty(n, np.int64)
    by_turn = np.argsort(turns, kind="stable")
    chosen, firsts = np.unique(turns[by_turn], return_index=True)
    for one, places in zip(chosen.tolist(), np.split(by_turn, firsts)[1:], strict=True):
        drawn[places] = by_class[starts[one] + _in_turn(int(lengths[one]), len(places), rng)]
    return drawn


def _in_turn(number: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random orders of 0..number - 1, one after the other, cut at `length`."""
    rounds = [rng.permutation(number) for _ in range(length // number)]
    # The last round is drawn without making all of it: 64 of 10^6 cost 64.
    return np.concatenate([*rounds, rng.choice(number, length % number, replace=False)]).astype(np.int64)
