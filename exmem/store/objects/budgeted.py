"""Objects under a strict budget of bytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exmem.errors import BudgetError
from exmem.store.objects.contract import Objects, View

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["BudgetedObjects"]


class BudgetedObjects:
    """Objects under a strict budget: the one place where bytes are put, so that none is put beyond the budget.

    `limit` is what all objects together may take at any instant, the one being replaced included. What the sizes say
    holds from `measure` on, while the lock is held. After an exception of a put or a delete it is unknown whether that
    took place: measure again before trusting them.
    """

    def __init__(self, objects: Objects, *, limit: int) -> None:
        self.objects = objects
        self.limit = limit
        self.sizes: dict[str, int] = {}
        self.total_bytes: int = 0

    @property
    def location(self) -> str:
        """Where it is, for messages."""
        return self.objects.location

    @property
    def place(self) -> "str | ZarrStore":
        """What opens it again."""
        return self.objects.place

    def measure(self) -> None:
        """Learn the size of every object."""
        sizes = self.objects.sizes()
        self.sizes, self.total_bytes = sizes, sum(sizes.values())

    def put(self, key: str, data: bytes) -> None:
        """Put an object if the old and the new one together stay within the budget; BudgetError otherwise."""
        self._admit(key, data)
        self.objects.put(key, data)
        self._record(key, len(data))

    def commit(self, key: str, data: bytes) -> None:
        """Put the commit point within the budget; see `Objects.commit`."""
        self._admit(key, data)
        self.objects.commit(key, data)
        self._record(key, len(data))

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        self.objects.delete(key)
        self.total_bytes -= self.sizes.pop(key, 0)

    def flush(self) -> None:
        """Make everything put and deleted so far durable."""
        self.objects.flush()

    def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object, None when it is missing; see `Objects.get`."""
        return self.objects.get(key, limit=limit)

    def get_many(self, keys: Sequence[str], *, limit: int) -> list[bytes | None]:
        """Return several objects; see `Objects.get_many`."""
        return self.objects.get_many(keys, limit=limit)

    def view(self, key: str) -> View | None:
        """Return an object for random access; see `Objects.view`."""
        return self.objects.view(key)

    def views(self, keys: Sequence[str]) -> list[View | None]:
        """Return several objects for random access; see `Objects.views`."""
        return self.objects.views(keys)

    def identity(self, key: str) -> object | None:
        """Return whether an object was replaced; see `Objects.identity`."""
        return self.objects.identity(key)

    def clear_temporary(self) -> None:
        """Delete what interrupted puts left behind; `measure` afterwards."""
        self.objects.clear_temporary()

    def acquire(self, *, take: bool) -> bool:
        """Take the lock; `measure` afterwards. See `Objects.acquire`."""
        return self.objects.acquire(take=take)

    def check_lock(self) -> None:
        """Raise LockedError when the lock is not held any more."""
        self.objects.check_lock()

    def release(self, *, clean: bool = True) -> None:
        """Give the lock back; see `Objects.release`."""
        self.objects.release(clean=clean)

    def _admit(self, key: str, data: bytes) -> None:
        if self.total_bytes + len(data) > self.limit:
            raise BudgetError(
                f"{self.location}/{key} needs {len(data):,} bytes beside {self.total_bytes:,}, "
                f"the budget is {self.limit:,}; nothing was put"
            )

    def _record(self, key: str, size: int) -> None:
        self.total_bytes += size - self.sizes.get(key, 0)
        self.sizes[key] = size
