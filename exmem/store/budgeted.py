"""Objects under a strict budget of bytes."""

import heapq
from collections.abc import Collection, Container

from exmem.errors import BudgetError
from exmem.store.objects import Objects

__all__ = ["BudgetedObjects"]

_MOST_STALE = 64


class BudgetedObjects:
    """Objects under a strict budget: the one place where bytes are put, so that none is put beyond the budget.

    Parameters
    ----------
    objects : Objects
        Where the objects lie.
    max_bytes : int
        Bytes that all objects together may take at any instant, the one being replaced included.
    """

    def __init__(self, objects: Objects, *, max_bytes: int) -> None:
        self.objects = objects
        self.location = objects.location
        self.max_bytes = max_bytes
        self.sizes: dict[str, int] = {}
        self.total_bytes = 0
        self._largest: dict[str, list[tuple[int, str]]] = {}  # heaps; an entry whose size is another now is stale
        for key, size in objects.sizes().items():
            self._record(key, size)

    def put(self, key: str, data: bytes) -> None:
        """Put an object if the old and the new one together stay within the budget.

        Parameters
        ----------
        key : str
            Name of the object.
        data : bytes
            Its content.

        Raises
        ------
        BudgetError
            If it would not fit; nothing was put.
        """
        self._admit(key, data)
        self.objects.put(key, data)
        self._record(key, len(data))

    def hold(self, key: str, data: bytes, *, take: bool) -> tuple[bool, bytes | None]:
        """Hold a lock object within the budget; see `Objects.hold`.

        Parameters
        ----------
        key : str
            Name of the object.
        data : bytes
            Who holds it.
        take : bool
            Whether it is written although it says something else.

        Returns
        -------
        held : bool
            Whether it is held now.
        before : bytes or None
            What it contained; None when it was not there.

        Raises
        ------
        BudgetError
            If it would not fit; nothing was put.
        """
        if key not in self.sizes:
            self._admit(key, data)
        held, before = self.objects.hold(key, data, take=take)
        if held:
            self._record(key, len(data) if take or before is None else len(before))
        return held, before

    def let_go(self, key: str, *, keep: bool) -> None:
        """Hold a lock object no longer.

        Parameters
        ----------
        key : str
            Name of the object.
        keep : bool
            Whether the object stays.
        """
        if not keep:
            self.delete(key)
        self.objects.let_go(key)

    def flush(self) -> None:
        """Make everything put and deleted so far durable."""
        self.objects.flush()

    def delete(self, key: str) -> None:
        """Delete an object.

        Parameters
        ----------
        key : str
            Name of the object.
        """
        self.objects.delete(key)
        self._record(key, 0)

    def largest(self, *, without: Container[str] = (), groups: Collection[str] = ()) -> int:
        """Return the size of the largest object.

        Parameters
        ----------
        without : container of str
            Keys that do not count.
        groups : collection of str
            Arrays whose chunks do not count, as paths.

        Returns
        -------
        int
            Bytes; 0 when there is none.
        """
        largest = 0
        for group, heap in self._largest.items():
            passed = []
            while group not in groups and heap:
                size, key = -heap[0][0], heap[0][1]
                if self.sizes.get(key) == size and key not in without:
                    largest = max(largest, size)
                    break
                if self.sizes.get(key) == size:
                    passed.append(heap[0])
                heapq.heappop(heap)
            for entry in passed:
                heapq.heappush(heap, entry)
        return largest

    def _record(self, key: str, size: int) -> None:
        before = self.sizes.pop(key, 0)
        self.total_bytes += size - before
        if size:
            self.sizes[key] = size
        if size and size != before:
            group = _group(key)
            heap = self._largest.setdefault(group, [])
            heapq.heappush(heap, (-size, key))
            if len(heap) > _MOST_STALE + 2 * len(self.sizes):  # most entries are stale: start again
                heap[:] = [(-held, name) for name, held in self.sizes.items() if _group(name) == group]
                heapq.heapify(heap)

    def _admit(self, key: str, data: bytes) -> None:
        if self.total_bytes + len(data) > self.max_bytes:
            raise BudgetError(
                f"{self.location}/{key} needs {len(data):,} bytes beside {self.total_bytes:,}, "
                f"the budget is {self.max_bytes:,}; nothing was put"
            )


def _group(key: str) -> str:
    """Return the array that a chunk belongs to; metadata is a group of its own."""
    return key.rpartition("/c.")[0]
