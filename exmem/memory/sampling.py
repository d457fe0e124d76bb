"""Which exemplars a memory draws: same labels and seed, same draw; O(n) time, O(n + N log N) where it is balanced."""

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
    """Return indices of `n` exemplars in random order; none comes again before all others of its kind came as often."""
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
