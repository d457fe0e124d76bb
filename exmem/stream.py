"""A reservoir of an online stream under a budget of bytes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exmem.errors import SchemaError
from exmem.memory import ExemplarMemory
from exmem.planning import AddReport
from exmem.tokens import Exemplar

__all__ = ["StreamReservoir"]


class StreamReservoir:
    """Keeps a uniform sample of everything that came, as large as the budget of a memory allows.

    Each arrival gets an independent random key in 0..1 as its priority. The memory evicts the lowest key first, and an
    arrival whose key is below one that was evicted or turned down before is turned down too, also where there is room.
    So at any moment the memory holds exactly the arrivals whose key is above a threshold that only rises: this is what
    uniform means here. Which ones these are depends neither on when they came nor on their class. Where exemplars are
    of unequal size, all of one size have the same chance, and larger ones a slightly smaller one, because a large
    exemplar raises the threshold by more; the difference is of the order of its share of the budget. All this holds
    while the memory is changed through the reservoir alone: what is discarded or evicted otherwise is missing.

    Parameters
    ----------
    memory : ExemplarMemory
        A memory made with `eviction="by_priority"`, open for writing.
    seed : int
        Seed of the keys.

    Raises
    ------
    SchemaError
        If the memory evicts by class.

    Notes
    -----
    Random keys: Efraimidis & Spirakis 2006, algorithm A-Res with equal weights. With exemplars of equal size the sample
    is that of a reservoir of fixed capacity (Vitter 1985).
    """

    def __init__(self, memory: ExemplarMemory, *, seed: int = 0) -> None:
        if memory.eviction != "by_priority":
            raise SchemaError("a reservoir needs a memory made with eviction='by_priority'")
        self.memory = memory
        self.seen = 0
        self._threshold = 0.0
        self._rng = np.random.default_rng(seed)

    def add(self, exemplars: Sequence[Exemplar]) -> AddReport:
        """Offer the next arrivals; their priorities are replaced by keys.

        Parameters
        ----------
        exemplars : sequence of Exemplar
            What came.

        Returns
        -------
        AddReport
            Slot of each, -1 where it is not held; the slots evicted.
        """
        keys = self._rng.random(len(exemplars))
        keyed = [dataclasses.replace(new, priority=float(key)) for new, key in zip(exemplars, keys, strict=True)]
        above = np.flatnonzero(keys > self._threshold)
        report = self.memory.add([keyed[index] for index in above.tolist()])
        slots = np.full(len(exemplars), -1, np.int64)
        slots[above] = report.slots
        turned_down = keys[above][report.slots < 0]
        self._threshold = float(max([self._threshold, *report.evicted_priorities, *turned_down]))
        self.seen += len(exemplars)
        return dataclasses.replace(report, slots=slots)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values; save it when the memory commits."""
        return {"seen": self.seen, "threshold": self._threshold, "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a saved reservoir stopped.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.
        """
        self.seen, self._threshold = int(state["seen"]), float(state["threshold"])
        self._rng.bit_generator.state = state["rng"]
