"""What a store needs from the place it lies in."""

import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["TEMPORARY", "Objects", "View"]

TEMPORARY = ".tmp-"  # how the name of a file begins that is not yet an object


class View(NamedTuple):
    """The bytes of an object for random access; `identity` is another one when the object was replaced."""

    data: bytes | mmap.mmap
    identity: object


class Objects(Protocol):
    """Named bytes that are put and deleted atomically, and the lock of their one writer.

    Keys are relative and have slashes. Implementations raise `StoreIOError` when the storage fails, `ReadOnlyError`
    when it cannot be written and `FormatError` for what is no plain object of a plausible size.
    """

    @property
    def location(self) -> str:
        """Where it is, for messages."""

    @property
    def place(self) -> "str | ZarrStore":
        """What opens it again: an absolute path or a Zarr store."""

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object, temporary and foreign ones too, in the order of the keys."""

    def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object, None when it is missing; FormatError when it has more than `limit` bytes."""

    def get_many(self, keys: Sequence[str], *, limit: int) -> list[bytes | None]:
        """Return several objects; at once where that is faster."""

    def view(self, key: str) -> View | None:
        """Return an object for random access, None when it is missing; later puts do not change it."""

    def views(self, keys: Sequence[str]) -> list[View | None]:
        """Return several objects for random access; at once where that is faster."""

    def identity(self, key: str) -> object | None:
        """Return what `View.identity` is as long as the object was not replaced, None when it is missing."""

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object; afterwards, also after a crash, it is the old or the new one."""

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""

    def flush(self) -> None:
        """Make everything put and deleted so far durable; before this a loss of power may undo it."""

    def clear_temporary(self) -> None:
        """Delete what interrupted puts left behind; only while the lock is held."""

    def acquire(self, *, take: bool) -> bool:
        """Take the lock; return whether the last writer ended without giving it back.

        LockedError when another writer holds it or may hold it; `take` takes it from one of which it cannot be told.
        """

    def check_lock(self) -> None:
        """Raise LockedError when this object does not hold the lock any more."""

    def commit(self, key: str, data: bytes) -> None:
        """Put the one object that makes the others count, if the lock is still held; durable afterwards."""

    def release(self, *, clean: bool = True) -> None:
        """Give the lock back; without `clean` the next writer learns that this one did not finish."""
