"""A uniform sample of a stream: as an order by random keys, or by its places."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError
from exmem.selection.base import checked_count

__all__ = ["Reservoir", "reservoir_order"]


def reservoir_order(number: int, rng: np.random.Generator, *, count: int | None = None) -> NDArray[np.int64]:
    """Order a stream so that its first `c` are a reservoir of `c` places, for every `c`.

    Each arrival draws a key in 0..1 when it comes; the order goes by key, the highest first. So it is nested twice:
    fewer places hold a part of what more places hold, and arrivals that come later only push others back: those of a
    stream that has gone on are still in the same order among themselves. A memory under a budget of bytes does the same
    with keys as priorities: `exmem.memory.reservoir.StreamReservoir`.

    Parameters
    ----------
    number : int
        Arrivals N so far.
    rng : numpy.random.Generator
        Source of the keys: one draw per arrival.
    count : int, optional
        Length of the order, 0 or more; all N when left out or larger.

    Notes
    -----
    Random keys: Efraimidis & Spirakis 2006, algorithm A-Res with equal weights.
    """
    length = checked_count(count, number)
    return np.argsort(-rng.random(number), kind="stable")[:length].astype(np.int64)


class Reservoir:
    """A uniform sample of a stream of unknown length.

    Parameters
    ----------
    max_exemplars : int
        Places, 1 or more.
    seed : int
        The same seed makes the same choices for the same arrivals.

    Notes
    -----
    Algorithm R (Vitter 1985, section 2): after n arrivals each is held with probability max_exemplars / n.
    """

    def __init__(self, max_exemplars: int, *, seed: int = 0) -> None:
        if max_exemplars < 1:
            raise SchemaError(f"max_exemplars must be 1 or more, got {max_exemplars}")
        self.max_exemplars = max_exemplars
        self.seen: int = 0
        self._rng = np.random.default_rng(seed)

    def offer(self) -> int | None:
        """Return the place that the next arrival takes, whose holder leaves; None when it is not held."""
        self.seen += 1
        if self.seen <= self.max_exemplars:
            return self.seen - 1
        place = int(self._rng.integers(self.seen))
        return place if place < self.max_exemplars else None

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        return {"max_exemplars": self.max_exemplars, "seen": self.seen, "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a saved reservoir stopped; SchemaError if it has another number of places.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.
        """
        if state["max_exemplars"] != self.max_exemplars:
            places = state["max_exemplars"]
            raise SchemaError(f"expected the state of a reservoir of {self.max_exemplars}, got {places}")
        self.seen = int(state["seen"])
        self._rng.bit_generator.state = state["rng"]
