"""A uniform sample of a stream under a budget of bytes."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import FormatError, InvalidExemplarError, SchemaError
from exmem.tokens import Exemplar, TokenBatch
from exmem.tokens.checks import whole_number
from exmem.tokens.sets import exemplars_in

if TYPE_CHECKING:
    from exmem.memory.memory import ExemplarMemory
    from exmem.memory.reports import AddReport

__all__ = ["StreamReservoir", "arrival_keys", "checked_state", "raised"]

_MOST_SEED = 2**63 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio


class StreamReservoir:
    """Keeps a uniform sample of everything that came, as large as the budget of a memory allows.

    Each arrival gets an independent random key in 0..1 as its priority. The memory evicts the lowest key first, and an
    arrival whose key is below one that was evicted or turned down before is turned down too, also where there is room.
    So at any moment the memory holds exactly the arrivals whose key is above a threshold that only rises: this is what
    uniform means here. Which ones these are depends neither on when they came nor on their class. Where exemplars are
    of unequal size, all of one size have the same chance, and larger ones a slightly smaller one, because a large
    exemplar raises the threshold by more; the difference is of the order of its share of the budget. All this holds
    while arrivals come through the reservoir alone and go by policy alone: what was added or evicted by hand is too
    many, or missing.

    The state (seed, arrivals seen, threshold) is part of the memory: it is committed, discarded and found again with
    the exemplars. A stream that goes on after a crash goes on at arrival `seen`.

    Parameters
    ----------
    memory : ExemplarMemory
        A memory made with `eviction="by_priority"`.
    seed : int, optional
        Seed of the keys, 0..2^63 - 1. When left out: that of the stream that the memory has seen, else 0.

    Raises
    ------
    SchemaError
        If the memory evicts by class, or its stream began with another seed.

    Notes
    -----
    Random keys: Efraimidis & Spirakis 2006, algorithm A-Res with equal weights. With exemplars of equal size the sample
    is that of a reservoir of as many places (Vitter 1985).
    """

    def __init__(self, memory: "ExemplarMemory", *, seed: int | None = None) -> None:
        if memory.eviction != "by_priority":
            raise SchemaError("a reservoir needs a memory made with eviction='by_priority'")
        seed = None if seed is None else whole_number(seed, "the seed", most=_MOST_SEED)
        self.memory = memory
        self._new = {"seed": seed or 0, "seen": 0, "threshold": 0.0}
        recorded = self.seed
        if seed is not None and seed != recorded:
            raise SchemaError(
                f"the stream of {memory.location} began with seed {recorded}, got {seed}; leave the seed out to go on"
            )

    @property
    def seed(self) -> int:
        """Seed of the keys."""
        return int(self._state()["seed"])

    @property
    def seen(self) -> int:
        """Arrivals so far, those not yet committed among them."""
        return int(self._state()["seen"])

    @property
    def threshold(self) -> float:
        """The highest key that was evicted or turned down."""
        return float(self._state()["threshold"])

    def add(self, exemplars: Sequence[Exemplar] | TokenBatch) -> "AddReport":
        """Offer the next arrivals; their priorities are replaced by keys.

        Parameters
        ----------
        exemplars : sequence of Exemplar, or TokenBatch
            In the order in which they came.

        Returns
        -------
        AddReport
            Slot of each, -1 where it is not held; the slots evicted.
        """
        arrivals = exemplars_in(exemplars)
        return self.offer(len(arrivals), lambda above: [arrivals[index] for index in above.tolist()])

    def above(self, count: int, *, after: int = 0) -> NDArray[np.int64]:
        """Name those of the next arrivals that have a chance; the others need not even be made.

        Parameters
        ----------
        count : int
            How many arrive.
        after : int
            How many come before them, which are not offered yet; what these evict may end a chance, but gives none.

        Returns
        -------
        ndarray, shape (M,), int64
            Their indices, each of 0..count-1.
        """
        state = self._state()
        return np.flatnonzero(arrival_keys(state["seed"], state["seen"] + after, count) > state["threshold"])

    def offer(self, count: int, make: Callable[[NDArray[np.int64]], Sequence[Exemplar] | TokenBatch]) -> "AddReport":
        """Offer the next arrivals, and make exemplars only of those that have a chance: after a while, of few.

        Parameters
        ----------
        count : int
            How many arrive.
        make : callable
            Returns exemplars of the arrivals with these indices, each of 0..count-1, in their order.

        Returns
        -------
        AddReport
            As `add`.

        Raises
        ------
        InvalidExemplarError
            If it returns another number of exemplars, or one that does not fit; nothing has arrived then.
        """
        arrivals = whole_number(count, "count")
        self.memory._ready()  # what is carried through now raises the threshold
        before = self._state()
        keys = arrival_keys(before["seed"], before["seen"], arrivals)
        above = np.flatnonzero(keys > before["threshold"])
        made = exemplars_in(make(above)) if len(above) else []
        if len(made) != len(above):
            raise InvalidExemplarError(f"make: expected {len(above)} exemplars, got {len(made)}")
        keyed = [dataclasses.replace(one, priority=float(keys[index])) for one, index in zip(made, above, strict=True)]
        report = self.memory._add_to_stream(keyed, before, arrivals)
        slots = np.full(arrivals, -1, np.int64)
        slots[above] = report.slots
        return dataclasses.replace(report, slots=slots)

    def _state(self) -> dict[str, Any]:
        # The state is the memory's: so it is right after a discard and after a crash, too.
        state = self.memory.reservoir_state
        return self._new if state is None else checked_state(state, self.memory.location)


def raised(state: Mapping[str, Any], priorities: Iterable[float]) -> dict[str, Any]:
    """Return the state of a stream after exemplars of these priorities went; no key is above 1."""
    return {**state, "threshold": min(1.0, max([float(state["threshold"]), *map(float, priorities)]))}


def arrival_keys(seed: int, first: int, count: int) -> NDArray[np.float64]:
    """Return the keys of `count` arrivals from number `first` on, above 0 and below 1: a function of seed and number.

    SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"; constants as in Vigna's
    splitmix64.c) by counter. The seed is mixed first, so that neighbouring seeds start far apart.
    """
    counters = np.arange(first + 1, first + 1 + count, dtype=np.uint64)
    start = _mixed(np.array([seed], np.uint64) + _GOLDEN)
    bits = _mixed(start + counters * _GOLDEN)  # unsigned arithmetic wraps at 2^64
    # The middle of one of 2^52 equal intervals: exact, and never 0 or 1.
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def checked_state(state: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Return the state of a stream, of whatever origin; FormatError if it is none."""
    values: list[Any] = [state.get(name) for name in ("seed", "seen", "threshold")]
    seed, seen, threshold = values
    whole = type(seed) is int and type(seen) is int and 0 <= seed <= _MOST_SEED and 0 <= seen <= _MOST_SEED
    if not whole or type(threshold) not in {int, float} or not 0 <= threshold <= 1:
        raise FormatError(
            f"{location}: expected the seed, the arrivals seen and the threshold of a stream, got {str(state)[:80]}"
        )
    return {"seed": seed, "seen": seen, "threshold": float(threshold)}


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
