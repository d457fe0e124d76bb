"""Which arrivals a buffer of mammoth keeps: its strategies of selection, by keys that follow from seed and number."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.errors import SchemaError
from exmem.integrations.samples.memory import FieldMemory
from exmem.memory.reservoir import arrival_keys
from exmem.tokens.checks import choice

__all__ = ["SCORED", "Arrivals", "Rule", "memory_options", "rule_of"]

UNIFORM, BALANCED, SCORED = ("reservoir", "unlimited"), ("balanced", "balancoir"), ("abs", "labrs", "lars")


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """Some arrivals: how many, and of those that may be kept their indices, values, labels and keys or scores."""

    count: int
    at: NDArray[np.int64]
    values: dict[str, Tensor]
    labels: NDArray[np.int64]
    ranks: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: "Sequence[Arrivals]") -> "Arrivals":
        """Return several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        firsts = np.cumsum([0, *[part.count for part in parts]])
        some = [part for part in parts if len(part.at)] or parts[:1]
        return cls(
            int(firsts[-1]),
            np.concatenate([part.at + first for part, first in zip(parts, firsts[:-1], strict=True)]),
            {name: torch.cat([part.values[name] for part in some]) for name in some[0].values},
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.ranks for part in parts]),
        )


class Rule(Protocol):
    """Decides over arrivals; what must be known to go on, beside the memory, is its state."""

    @property
    def seen(self) -> int:
        """Arrivals so far."""
        ...

    def above(
        self, count: int, labels: NDArray[np.int64], *, after: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Name those of the next arrivals, behind some that wait, that have a chance; and a key of each."""
        ...

    def offer(self, arrivals: Arrivals) -> None:
        """Let arrivals in, or not."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what goes into the notes of the memory."""
        ...

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where a state was noted."""
        ...


class StreamRule:
    """A uniform sample of all that came: `StreamReservoir`, whose state is the memory's."""

    def __init__(self, memory: FieldMemory) -> None:
        self._memory = memory

    @property
    def seen(self) -> int:
        """Arrivals so far."""
        return self._memory.seen

    def above(
        self, count: int, labels: NDArray[np.int64], *, after: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `Rule`."""
        at = self._memory.above(count, after=after)
        return at, np.zeros(len(at))

    def offer(self, arrivals: Arrivals) -> None:
        """See `Rule`."""
        if self._memory.exists:
            self._memory.offer(arrivals.count, arrivals.at, arrivals.values, arrivals.labels)
        else:
            self._memory.add(arrivals.values, arrivals.labels)

    def state(self) -> dict[str, Any]:
        """See `Rule`."""
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        """See `Rule`."""


class ClassRule:
    """As many exemplars of each class, and of each class a uniform sample of its arrivals.

    Each arrival has a random key. The class with most exemplars loses its lowest key, and an arrival whose key is below
    one that its class lost is turned down, as a `StreamReservoir` does for all classes together.
    """

    def __init__(self, memory: FieldMemory, seed: int) -> None:
        self._memory, self._seed = memory, seed
        self.seen = 0
        self._thresholds: dict[int, float] = {}

    def above(
        self, count: int, labels: NDArray[np.int64], *, after: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `Rule`."""
        keys = arrival_keys(self._seed, self.seen + after, count)
        thresholds = np.array([self._thresholds.get(label, 0.0) for label in labels.tolist()])
        at = np.flatnonzero(keys > thresholds)
        return at, keys[at]

    def offer(self, arrivals: Arrivals) -> None:
        """See `Rule`."""
        if len(arrivals.at):
            held = self._memory.memory if self._memory.exists else None
            before = None if held is None else (held.slots, held.labels, held.priorities)
            report = self._memory.add(arrivals.values, arrivals.labels, arrivals.ranks)
            down = report.slots < 0
            self._raise(arrivals.labels[down], arrivals.ranks[down])
            if before is not None:
                gone = np.isin(before[0], report.evicted)
                self._raise(before[1][gone], before[2][gone])
            kept = np.isin(report.slots, report.evicted) & ~down  # a part of a large add may go in the next part
            self._raise(arrivals.labels[kept], arrivals.ranks[kept])
        self.seen += arrivals.count

    def _raise(self, labels: NDArray[np.int64], keys: NDArray[np.float64]) -> None:
        for label, key in zip(labels.tolist(), keys.tolist(), strict=True):
            self._thresholds[label] = max(self._thresholds.get(label, 0.0), key)

    def state(self) -> dict[str, Any]:
        """See `Rule`."""
        return {"seen": self.seen, "thresholds": {str(label): key for label, key in self._thresholds.items()}}

    def resume(self, state: dict[str, Any]) -> None:
        """See `Rule`."""
        self.seen = int(state.get("seen", len(self._memory)))
        self._thresholds = {int(label): float(key) for label, key in state.get("thresholds", {}).items()}


class ScoreRule:
    """Arrivals come in with the chance of a reservoir, and who goes is drawn by scores: the higher, the likelier.

    LARS and LABRS: Buzzega et al. 2020, "Rethinking Experience Replay: a Bag of Tricks for Continual Learning". ABS:
    Millunzi et al. 2024, "May the Forgetting Be with You". As in mammoth the scores are given with the arrivals,
    negative losses where high losses are to stay, and change by `Buffer.sample_selection_fn.update`.
    """

    def __init__(
        self,
        memory: FieldMemory,
        seed: int,
        *,
        weigh: Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]],
        scores: Callable[[], NDArray[np.float64]],
    ) -> None:
        self._memory, self._seed, self._weigh, self._scores = memory, seed, weigh, scores
        self.seen = 0

    def _most(self) -> int:
        """Exemplars that it holds when it is full; where bytes are the limit, as many as it holds now."""
        most = self._memory.memory.max_exemplars if self._memory.exists else None
        return len(self._memory) if most is None or self.seen > len(self._memory) else most

    def above(
        self, count: int, labels: NDArray[np.int64], *, after: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `Rule`."""
        numbers = self.seen + after + np.arange(count)
        most = self._most()
        draws = arrival_keys(self._seed, self.seen + after, count) * (numbers + 1)
        at = np.flatnonzero((numbers < most) | (draws < most)) if len(self._memory) else np.arange(count)
        return at, np.zeros(len(at))

    def offer(self, arrivals: Arrivals) -> None:
        """See `Rule`."""
        if len(arrivals.at):
            held = len(self._memory)
            kept, victims = self._drawn(arrivals, held)
            if len(victims):
                self._memory.evict(self._memory.slots[victims])
            values = {name: some[torch.from_numpy(kept)] for name, some in arrivals.values.items()}
            self._memory.add(values, arrivals.labels[kept], -arrivals.ranks[kept])
        self.seen += arrivals.count

    def _drawn(self, arrivals: Arrivals, held: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which arrivals stay, and the places of those exemplars that go."""
        room = self._room(len(arrivals.at))
        scores = np.concatenate([self._scores(), arrivals.ranks])
        labels = np.concatenate([self._memory.labels, arrivals.labels])
        there = np.arange(len(scores)) < held
        generator = np.random.default_rng((self._seed, self.seen))
        for number in range(held, len(scores)):
            if room > 0:
                room -= 1
            elif there.any():
                candidates = np.flatnonzero(there)
                weights = self._weigh(scores[candidates], labels[candidates])
                there[generator.choice(candidates, p=weights)] = False
            there[number] = True
        return np.flatnonzero(there[held:]), np.flatnonzero(~there[:held])

    def _room(self, most: int) -> int:
        """Return how many more can be held without an eviction."""
        if not self._memory.exists:
            return most
        memory = self._memory.memory
        free = most if memory.max_exemplars is None else memory.max_exemplars - len(memory)
        each = memory.used_bytes // max(1, len(memory))
        return max(0, min(free, memory.free_bytes // max(1, each)))

    def state(self) -> dict[str, Any]:
        """See `Rule`."""
        return {"seen": self.seen}

    def resume(self, state: dict[str, Any]) -> None:
        """See `Rule`."""
        self.seen = int(state.get("seen", len(self._memory)))


def memory_options(strategy: str, seed: int) -> dict[str, Any]:
    """Return what a FieldMemory for a strategy is made with; SchemaError if it is unknown."""
    choice(strategy, "sample_selection_strategy", UNIFORM + BALANCED + SCORED)
    if strategy in UNIFORM:
        return {"eviction": "by_priority", "seed": seed}
    return {"eviction": "by_class", "quota": "counts"} if strategy in BALANCED else {"eviction": "by_priority"}


def rule_of(
    strategy: str, memory: FieldMemory, seed: int, *, dataset: Any, scores: Callable[[], NDArray[np.float64]]
) -> Rule:
    """Return the rule that a strategy names; `scores` returns those of the exemplars held, by age."""
    if strategy in UNIFORM:
        return StreamRule(memory)
    if strategy in BALANCED:
        return ClassRule(memory, seed)
    if strategy == "abs" and not hasattr(dataset, "get_offsets"):
        raise SchemaError("strategy 'abs' asks the data set where the classes of a task begin; give dataset=")

    def by_task(given: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return _by_task(given, labels < int(dataset.get_offsets()[0]))

    weigh = {"lars": _by_score, "labrs": _by_score_and_count, "abs": by_task}[strategy]
    return ScoreRule(memory, seed, weigh=weigh, scores=scores)


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights between the lowest, 0, and the highest as shares of 1; equal ones where all are equal."""
    span = weights.max() - weights.min()
    scaled = (weights - weights.min()) / span if span > 0 else np.ones_like(weights)
    shares: NDArray[np.float64] = scaled / scaled.sum()
    return shares


def _by_score(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return _shares(scores)


def _by_score_and_count(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    balance = counts[which].astype(np.float64)
    scale = np.abs(scores).mean() * balance.mean()  # makes the two comparable, as mammoth does
    return _shares(scores / scale + balance if scale > 0 else balance)


def _by_task(scores: NDArray[np.float64], past: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of past tasks the low scores go, of the current one the high ones; each group by its share of exemplars."""
    weights = np.zeros(len(scores))
    for group, sign in ((past, -1.0), (~past, 1.0)):
        if group.any():
            weights[group] = _shares(sign * scores[group]) * group.mean()
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
