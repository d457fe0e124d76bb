"""Who goes next: exemplars in the order of eviction, kept up to date as they come and go.

Each time, the class with the highest load (bytes or exemplars over its weight: see `Quota`) loses its exemplar of
lowest priority; of equal priorities the newest goes, of equal loads the class with the higher label. So the classes
above a common level shrink to it and classes below it lend what they do not use.

The order does not depend on how much is needed: what remains after a small reduction contains what remains after a
large one. Nor does it matter when it is needed, after each batch that comes or once at the end, while the weights of
classes that are held do not change:

- With exemplars of equal size, none of which ranks before an older one of its class, exactly the same remains.
- With any sizes, where each class comes in one batch and has an equal share of the bytes, too.
- With other quotas, what remains of one reduction at the end is part of it; beside it there may be what came after
  a large exemplar had gone and fits into the gap that it left, which is smaller than one exemplar.
"""

import heapq
import itertools
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.memory.quota import Quota

__all__ = ["EvictionOrder", "Offered"]

_BLOCK = 1024  # most entries of a block: inserting moves 16 kB at most, and 10^6 entries are about 2,000 blocks


class Offered(NamedTuple):
    """Exemplars that would come: labels, priorities (ranks within the class) and bytes, shape (N,) each."""

    labels: NDArray[np.int64]
    priorities: NDArray[np.float64]
    sizes: NDArray[np.int64]


class EvictionOrder:
    """Each class to its quota, lowest priority first; without `by_class`, the lowest priority of all goes.

    About 17.5 bytes an exemplar and 500 a class. Making it takes O(N log N); naming a victim, entering an exemplar and
    striking one out O(log N) and a move of at most 16 kB. A change that is broken off half way leaves the order wrong:
    make it anew.
    """

    def __init__(
        self,
        slots: NDArray[np.int64],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
        sizes: NDArray[np.int64],
        *,
        quota: Quota,
        by_class: bool,
    ) -> None:
        self._by_class, self._changes = by_class, 0
        self._classes: dict[int, _Class] = {}
        classes = self._classes_of(labels)
        best_first = np.lexsort((slots, -priorities, classes))
        present, starts = np.unique(classes[best_first], return_index=True)
        for label, members in zip(present.tolist(), np.split(best_first, starts)[1:], strict=True):
            self._classes[label] = _Class(_Sorted(-priorities[members], slots[members]), int(sizes[members].sum()))
        self.set_quota(quota)

    def add(
        self,
        slots: NDArray[np.int64],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
        sizes: NDArray[np.int64],
    ) -> None:
        """Enter exemplars of slots that are not there; no priority is NaN."""
        touched = self._leave_queue(labels)
        for slot, label, rank, size in self._entries(slots, labels, priorities, sizes):
            if label not in self._classes:
                self._classes[label] = _Class(_Sorted(np.zeros(0), np.zeros(0, np.int64)), 0)
            self._classes[label].members.add(rank, slot)
            self._classes[label].used_bytes += size
        self._enter_queue(touched)

    def remove(
        self,
        slots: NDArray[np.int64],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
        sizes: NDArray[np.int64],
    ) -> None:
        """Strike out exemplars, given as they were entered; LookupError if one is not there: make the order anew."""
        touched = self._leave_queue(labels)
        for slot, label, rank, size in self._entries(slots, labels, priorities, sizes):
            self._classes[label].members.remove(rank, slot)
            self._classes[label].used_bytes -= size
        self._enter_queue(touched)

    def set_quota(self, quota: Quota) -> None:
        """Share in another way from now on."""
        self._changes += 1
        self._quota = quota
        labels = np.fromiter(self._classes, np.int64, len(self._classes))
        loads = np.array([self._load(*item) for item in self._classes.items()], np.float64)
        lowest_first = np.lexsort((labels, loads))
        self._queue = _Sorted(loads[lowest_first], labels[lowest_first])  # the class that loses next is the last

    def victims(self, size_of: Callable[[int], int], offered: Offered | None = None) -> Iterator[tuple[int, int]]:
        """Name who goes and its bytes, -1 - i for i of `offered`; RuntimeError if the order changes before the last."""
        changes = self._changes
        fronts = self._fronts(offered)
        # The waiting classes are those that lost or are offered something, and the next of all others.
        waiting = [(-self._load(label, front), -label) for label, front in fronts.items()]
        others = ((-load, -label) for load, label in self._queue.backwards() if label not in fronts)
        waiting.extend(itertools.islice(others, 1))
        heapq.heapify(waiting)
        while waiting:
            label = -heapq.heappop(waiting)[1]
            if label not in fronts:
                fronts[label] = _Front(self._classes[label])
                for other in itertools.islice(others, 1):
                    heapq.heappush(waiting, other)
            victim = fronts[label].take_worst()
            size = int(size_of(victim) if offered is None or victim >= 0 else offered.sizes[-1 - victim])
            yield victim, size
            if self._changes != changes:
                raise RuntimeError("the order of eviction was changed while it named victims; call victims() again")
            fronts[label].used_bytes -= size
            if len(fronts[label]):
                heapq.heappush(waiting, (-self._load(label, fronts[label]), -label))

    def _classes_of(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return labels if self._by_class else np.zeros_like(labels)

    def _load(self, label: int, holder: "_Class | _Front") -> float:
        return self._quota.load(label, used_bytes=holder.used_bytes, count=len(holder))

    def _fronts(self, offered: Offered | None) -> dict[int, "_Front"]:
        """Return the classes of what is offered, each with what it holds and what would come."""
        fronts: dict[int, _Front] = {}
        if offered is None:
            return fronts
        labels, ranks, sizes = self._classes_of(offered.labels), -offered.priorities, offered.sizes
        for index in np.lexsort((np.arange(len(ranks)), ranks)).tolist():  # best first
            label = int(labels[index])
            if label not in fronts:
                fronts[label] = _Front(self._classes.get(label))
            fronts[label].offer(float(ranks[index]), index, int(sizes[index]))
        return fronts

    def _entries(
        self,
        slots: NDArray[np.int64],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
        sizes: NDArray[np.int64],
    ) -> Iterator[tuple[int, int, float, int]]:
        columns = slots, self._classes_of(labels), -priorities, sizes
        return zip(*(column.tolist() for column in columns), strict=True)

    def _leave_queue(self, labels: NDArray[np.int64]) -> list[int]:
        """Take classes whose load is about to change out of the queue; return them, each once."""
        self._changes += 1
        touched = list(dict.fromkeys(self._classes_of(labels).tolist()))
        for label in touched:
            if label in self._classes:
                self._queue.remove(self._load(label, self._classes[label]), label)
        return touched

    def _enter_queue(self, labels: list[int]) -> None:
        for label in labels:
            if len(self._classes[label]):
                self._queue.add(self._load(label, self._classes[label]), label)
            else:
                del self._classes[label]


class _Class:
    """The exemplars of a class, best first: (rank, slot) with rank = -priority."""

    __slots__ = ("members", "used_bytes")

    def __init__(self, members: "_Sorted", used_bytes: int) -> None:
        self.members, self.used_bytes = members, used_bytes

    def __len__(self) -> int:
        return len(self.members)


class _Front:
    """What a class would hold after some victims; the class itself does not change."""

    __slots__ = ("_coming", "_held", "_left", "_worst_held", "used_bytes")

    def __init__(self, held: _Class | None) -> None:
        self.used_bytes = 0 if held is None else held.used_bytes
        self._left = 0 if held is None else len(held)
        self._held = iter(()) if held is None else held.members.backwards()
        self._worst_held = next(self._held, None)
        self._coming: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return self._left

    def offer(self, rank: float, index: int, size: int) -> None:
        """Enter an exemplar that would come; the best first."""
        self._coming.append((rank, index))
        self.used_bytes += size
        self._left += 1

    def take_worst(self) -> int:
        """Return who goes next, a slot or -1 - index; its bytes are for the caller to take off."""
        self._left -= 1
        # Equal priorities: the newest goes, and what is offered is newer than what is held.
        if self._coming and (self._worst_held is None or self._coming[-1][0] >= self._worst_held[0]):
            return -1 - self._coming.pop()[1]
        assert self._worst_held is not None
        slot = self._worst_held[1]
        self._worst_held = next(self._held, None)
        return slot


class _Sorted:
    """Pairs of a float and an integer, increasing, in blocks: a change moves the entries of one block only."""

    __slots__ = ("_blocks", "_length")

    def __init__(self, keys: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        self._length = len(keys)
        parts = [slice(start, start + _BLOCK // 2) for start in range(0, len(keys), _BLOCK // 2)]
        self._blocks = [(array("d", keys[block].tobytes()), array("q", numbers[block].tobytes())) for block in parts]

    def __len__(self) -> int:
        return self._length

    def backwards(self) -> Iterator[tuple[float, int]]:
        """Name all pairs, the last first."""
        for keys, numbers in reversed(self._blocks):
            yield from zip(reversed(keys), reversed(numbers), strict=True)

    def add(self, key: float, number: int) -> None:
        """Enter a pair that is not there."""
        self._length += 1
        if not self._blocks:
            self._blocks.append((array("d", [key]), array("q", [number])))
            return
        block = min(self._block_of(key, number), len(self._blocks) - 1)
        keys, numbers = self._blocks[block]
        place = _place(keys, numbers, key, number)
        keys.insert(place, key)
        numbers.insert(place, number)
        if len(keys) > _BLOCK:
            middle = len(keys) // 2
            halves = (keys[:middle], numbers[:middle]), (keys[middle:], numbers[middle:])
            self._blocks[block : block + 1] = halves

    def remove(self, key: float, number: int) -> None:
        """Strike out a pair that is there; else LookupError, before anything is changed."""
        block = self._block_of(key, number)
        keys, numbers = self._blocks[block]
        place = _place(keys, numbers, key, number)
        _check_is_there((keys[place], numbers[place]), (key, number))
        del keys[place], numbers[place]
        self._length -= 1
        before = self._blocks[block - 1] if block else None
        if not keys:
            del self._blocks[block]
        elif before is not None and len(keys) < _BLOCK // 4 and len(before[0]) + len(keys) <= _BLOCK // 2:
            # Few entries in each of many blocks would need more memory than the entries.
            self._blocks[block - 1 : block + 1] = [(before[0] + keys, before[1] + numbers)]
        elif len(keys) % (_BLOCK // 8) == 0:
            self._blocks[block] = keys[:], numbers[:]  # an array that shrinks by one gives nothing back, a copy does

    def _block_of(self, key: float, number: int) -> int:
        return bisect_left(self._blocks, (key, number), key=_last)


def _last(block: "tuple[array[float], array[int]]") -> tuple[float, int]:
    return block[0][-1], block[1][-1]


def _check_is_there(entry: tuple[float, int], expected: tuple[float, int]) -> None:
    if entry != expected:
        raise LookupError(f"expected {expected} in the order of eviction, got {entry}; make the order anew")


def _place(keys: "array[float]", numbers: "array[int]", key: float, number: int) -> int:
    """Where a pair is or would be in its block."""
    start = bisect_left(keys, key)
    return bisect_left(numbers, number, start, bisect_right(keys, key, start))
