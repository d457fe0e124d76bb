"""Who goes next: exemplars ordered for eviction, kept up to date as they come and go."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.budget import Quota

__all__ = ["Candidate", "Ledger"]


_EQUAL_BYTES = Quota()


class Candidate(NamedTuple):
    """An exemplar that is offered.

    Parameters
    ----------
    label : int
        Its class.
    priority : float
        Its rank within the class.
    size : int
        Its bytes.
    """

    label: int
    priority: float
    size: int


class _Class:
    """The exemplars of a class, best first; of equal priorities the older first."""

    def __init__(self, slots: NDArray[np.int64], ranks: NDArray[np.float64], used: int) -> None:
        self.slots, self.ranks, self.used = slots, ranks, used  # ranks: -priority, increasing

    def find(self, slot: int, rank: float) -> int:
        start, stop = np.searchsorted(self.ranks, rank, "left"), np.searchsorted(self.ranks, rank, "right")
        return int(start + np.searchsorted(self.slots[start:stop], slot))


class Ledger:
    """Each class to its quota, lowest priority first.

    Each time, the class with the highest load (bytes or exemplars over its weight: see `exmem.budget.Quota`) loses its
    exemplar of lowest priority; of equal priorities the newest goes, of equal loads the class with the higher label. So
    the classes above a common level shrink to it and classes below it lend what they do not use.

    The order does not depend on how much is needed: what remains after a small reduction contains what remains after a
    large one. Nor does it matter when it is needed, after each batch that comes or once at the end, while the weights
    of classes that are held do not change:

    - With exemplars of equal size, none of which ranks before an older one of its class, exactly the same remains.
    - With any sizes, where each class comes in one batch and has an equal share of the bytes, too.
    - With other quotas, what remains of one reduction at the end is part of it; beside it there may be what came after
      a large exemplar had gone and fits into the gap that it left, which is smaller than one exemplar.

    Parameters
    ----------
    slots : ndarray, shape (N,), int64
        Slots of the exemplars held, increasing.
    labels : ndarray, shape (N,), int64
        Their classes.
    priorities : ndarray, shape (N,), float64
        Their ranks within the class.
    sizes : ndarray, shape (N,), int64
        Their bytes.

    Notes
    -----
    16 bytes an exemplar. Making it takes O(N log N); a victim O(log C), an exemplar that comes or goes a copy of 16
    bytes per exemplar of its class.

    Examples
    --------
    >>> sizes = np.array([10, 10, 10, 15])
    >>> ledger = Ledger(np.arange(4), np.array([0, 0, 0, 1]), np.array([3.0, 2.0, 1.0, 0.0]), sizes)
    >>> [victim for victim, _ in ledger.victims(sizes.__getitem__)]
    [2, 1, 3, 0]
    """

    def __init__(
        self,
        slots: NDArray[np.int64],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
        sizes: NDArray[np.int64],
    ) -> None:
        self._classes: dict[int, _Class] = {}
        order = np.lexsort((slots, -priorities, labels))
        found, starts = np.unique(labels[order], return_index=True)
        for label, part in zip(found.tolist(), np.split(order, starts)[1:], strict=True):
            self._classes[label] = _Class(slots[part], -priorities[part], int(sizes[part].sum()))

    def add(self, slots: Sequence[int], candidates: Sequence[Candidate]) -> None:
        """Enter exemplars.

        Parameters
        ----------
        slots : sequence of int
            Their slots, increasing and above all that are there.
        candidates : sequence of Candidate
            What they are.
        """
        for slot, new in zip(slots, candidates, strict=True):
            held = self._classes.setdefault(new.label, _Class(np.zeros(0, np.int64), np.zeros(0), 0))
            at = np.searchsorted(held.ranks, -new.priority, "right")
            held.slots, held.ranks = np.insert(held.slots, at, slot), np.insert(held.ranks, at, -new.priority)
            held.used += new.size

    def remove(self, slots: Sequence[int], candidates: Sequence[Candidate]) -> None:
        """Strike out exemplars.

        Parameters
        ----------
        slots : sequence of int
            Slots that were entered.
        candidates : sequence of Candidate
            What they are.
        """
        for slot, gone in zip(slots, candidates, strict=True):
            held = self._classes[gone.label]
            at = held.find(slot, -gone.priority)
            held.slots, held.ranks = np.delete(held.slots, at), np.delete(held.ranks, at)
            held.used -= gone.size
            if not len(held.slots):
                del self._classes[gone.label]

    def victims(
        self, size_of: Callable[[int], int], offered: Sequence[Candidate] = (), *, quota: Quota = _EQUAL_BYTES
    ) -> Iterator[tuple[int, int]]:
        """Name who goes, first the first; nothing is changed.

        Parameters
        ----------
        size_of : callable
            Slot -> bytes.
        offered : sequence of Candidate
            Exemplars that would come; they may be turned down themselves.
        quota : Quota
            How classes share; equal bytes when left out.

        Yields
        ------
        victim : int
            A slot; -1 - i for the exemplar i of `offered`.
        size : int
            Its bytes.
        """
        coming: dict[int, list[int]] = {}
        for index in sorted(range(len(offered)), key=lambda i: (-offered[i].priority, i)):
            coming.setdefault(offered[index].label, []).append(index)
        used = {label: held.used for label, held in self._classes.items()}
        left = {label: len(held.slots) for label, held in self._classes.items()}
        for label, indices in coming.items():
            used[label] = used.get(label, 0) + sum(offered[index].size for index in indices)

        def entry(label: int) -> tuple[float, int]:
            count = left.get(label, 0) + len(coming.get(label, ()))
            return -quota.load(label, used_bytes=used[label], count=count), -label

        queue = [entry(label) for label in used]
        heapq.heapify(queue)
        while queue:
            label = -heapq.heappop(queue)[1]
            held, new, count = self._classes.get(label), coming.get(label, []), left.get(label, 0)
            # Equal priorities: the newest goes, and what is offered is newer than what is held.
            if new and (held is None or count == 0 or -offered[new[-1]].priority >= held.ranks[count - 1]):
                victim = -1 - new.pop()
                size = offered[-1 - victim].size
            else:
                assert held is not None
                victim = int(held.slots[count - 1])
                size = int(size_of(victim))
                left[label] = count - 1
            yield victim, size
            used[label] -= size
            if new or left.get(label):
                heapq.heappush(queue, entry(label))
