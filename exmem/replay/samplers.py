"""Which exemplars are replayed: endless streams of slots, by seed."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from exmem.errors import SchemaError
from exmem.registry import Registry

__all__ = ["SAMPLERS", "BalancedSampler", "UniformSampler"]


class UniformSampler(Sampler[int]):
    """Each exemplar equally often: one random order after the other.

    Parameters
    ----------
    slots : ndarray, shape (N,), int64
        Slots to draw from.
    labels : ndarray, shape (N,), int64
        Their classes.
    length : int
        Slots of one pass over all ranks together, which may be more or fewer than N.
    seed : int
        Seed; passes of the same seed and epoch are alike, whatever the number of workers.
    rank : int
        This process of `num_replicas`; each draws its share of the same pass: disjoint, and of the same length (what
        does not divide is left out).
    num_replicas : int
        Processes that train together.

    Raises
    ------
    SchemaError
        If there is no slot to draw from, or no such rank.
    """

    def __init__(
        self,
        slots: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        length: int | None = None,
        seed: int = 0,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        if not 0 <= rank < num_replicas:
            raise SchemaError(f"rank must be in 0..{num_replicas - 1} (num_replicas - 1), got {rank}")
        if len(slots) == 0:
            raise SchemaError("the memory holds no exemplar to draw; add and commit some first")
        self.slots, self.labels, self.seed = np.asarray(slots), np.asarray(labels), seed
        self.length = len(slots) if length is None else length
        self.rank, self.num_replicas = rank, num_replicas
        self.epoch = 0
        self._done = 0

    def __len__(self) -> int:
        return self.length // self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass.

        Parameters
        ----------
        epoch : int
            Number of the pass.
        """
        self.epoch, self._done = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Return where in the pass the sampler is."""
        return {"epoch": self.epoch, "done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue in the middle of a pass.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.
        """
        self.epoch, self._done = int(state["epoch"]), int(state["done"])

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self._order(rng)[: len(self) * self.num_replicas][self.rank :: self.num_replicas]
        for slot in order[self._done :].tolist():
            self._done += 1
            yield slot
        self._done = 0

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        return self.slots[_cycled(len(self.slots), self.length, rng)]


class BalancedSampler(UniformSampler):
    """Each class equally often, and within a class each exemplar equally often; parameters as for `UniformSampler`."""

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        classes = np.unique(self.labels)
        turns = _cycled(len(classes), self.length, rng)
        out = np.empty(self.length, np.int64)
        for index, label in enumerate(classes):
            at = np.flatnonzero(turns == index)
            own = self.slots[self.labels == label]
            out[at] = own[_cycled(len(own), len(at), rng)]
        return out


def _cycled(number: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random orders of 0..number - 1, one after the other, cut at `length`."""
    rounds = [rng.permutation(number) for _ in range(-(-length // number))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])[:length]


SAMPLERS: Registry[UniformSampler] = Registry("sampler", {"balanced": BalancedSampler, "uniform": UniformSampler})
