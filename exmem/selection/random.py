"""Random selection: an order, or a uniform sample of a stream."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError

__all__ = ["Reservoir", "random_order"]


def random_order(number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Order examples at random.

    Parameters
    ----------
    number : int
        Examples N.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray, shape (N,), int64
        Indices, each once.
    """
    return rng.permutation(number).astype(np.int64)


class Reservoir:
    """A uniform sample of a stream of unknown length.

    Parameters
    ----------
    capacity : int
        Places, 1 or more.
    seed : int
        Seed of the choices.

    Raises
    ------
    SchemaError
        If the capacity is below 1.

    Notes
    -----
    Algorithm R (Vitter 1985, section 2): after n arrivals each is held with probability capacity / n.
    """

    def __init__(self, capacity: int, *, seed: int = 0) -> None:
        if capacity < 1:
            raise SchemaError(f"capacity must be 1 or more, got {capacity}")
        self.capacity = capacity
        self.seen = 0
        self._rng = np.random.default_rng(seed)

    def offer(self) -> int | None:
        """Decide where the next arrival goes.

        Returns
        -------
        int or None
            The place it takes, whose holder leaves; None when it is not held.
        """
        self.seen += 1
        if self.seen <= self.capacity:
            return self.seen - 1
        place = int(self._rng.integers(self.seen))
        return place if place < self.capacity else None

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        return {"capacity": self.capacity, "seen": self.seen, "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a saved reservoir stopped.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.

        Raises
        ------
        SchemaError
            If it is the state of a reservoir of another capacity.
        """
        if state["capacity"] != self.capacity:
            raise SchemaError(f"expected the state of a reservoir of {self.capacity}, got {state['capacity']}")
        self.seen = int(state["seen"])
        self._rng.bit_generator.state = state["rng"]
