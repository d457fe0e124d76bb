"""The exemplar memory: what other code embeds."""

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.budget import parse_bytes
from exmem.errors import (
    ReadOnlyError,
    SchemaError,
)
from exmem.planning import AddPlan, AddReport, ClassSummary, Policy, summarise
from exmem.store import Place, Store, Writer, create_store, open_store
from exmem.tokens import Exemplar, Schema, TokenBatch

if TYPE_CHECKING:
    from typing import Self

__all__ = ["AddPlan", "AddReport", "ClassSummary", "ExemplarMemory"]


class ExemplarMemory:
    """All exemplars under one budget of bytes; made by `create` or `open`.

    Adding encodes exemplars and holds them until `commit()`; a full shard of them is written earlier but is not
    visible before the commit. When the budget does not hold all, the class that uses most bytes loses its exemplars of
    lowest priority first, old or new; of equal priorities the newest goes. `with memory:` commits at the end, and
    discards what is not committed when an error leaves the block.

    One process may write (`create`, `open(mode="r+")`), any number may read (`open(mode="r")`); a reader sees the state
    of its opening until `refresh()`. A memory is not for use from several threads at once. Every method that changes a
    memory opened for reading, or closed, raises `ReadOnlyError`, and `StoreIOError` when the storage fails: the last
    committed state then holds, and the change may be tried again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._policy = Policy(store)

    @classmethod
    def create(
        cls,
        place: Place,
        *,
        schema: Schema,
        max_bytes: int | str,
        eviction: Literal["by_class", "by_priority"] = "by_class",
        durable: bool = True,
        threads: int | None = None,
    ) -> "ExemplarMemory":
        """Make an empty memory and open it for writing.

        Parameters
        ----------
        place : path or zarr store
            A folder that is missing or empty, or a Zarr store.
        schema : Schema
            What every exemplar holds.
        max_bytes : int or str
            The budget: bytes or text such as `"64MB"`. All objects of the store together never exceed it.
        eviction : {"by_class", "by_priority"}
            Who goes first when bytes are needed: the lowest priority of the class that uses most bytes, or the lowest
            priority of all whatever its class (for a stream: see `exmem.stream`).
        durable : bool
            Whether a commit is synchronised with the disk before it is reported.
        threads : int, optional
            Threads that encode and decode; the processors of this machine, at most 8, when left out.

        Returns
        -------
        ExemplarMemory
            The memory; `close()` it or use it as a context manager.

        Raises
        ------
        BudgetTooSmallError
            If the budget is below what an empty store needs; the message says how much.
        StoreExistsError
            If something is already there.
        SchemaError, CodecError
            If the schema or one of its codecs cannot be used.
        StoreIOError, ReadOnlyError
            If the place cannot be written.
        """
        budget = parse_bytes(max_bytes)
        store = create_store(place, schema, max_bytes=budget, eviction=eviction, durable=durable, threads=threads)
        return cls(store)

    @classmethod
    def open(
        cls,
        place: Place,
        mode: Literal["r", "r+"] = "r",
        *,
        durable: bool = True,
        threads: int | None = None,
        take_lock: bool = False,
    ) -> "ExemplarMemory":
        """Open a memory that exists.

        Parameters
        ----------
        place : path or zarr store
            Where it lies.
        mode : {"r", "r+"}
            Reading (any number of processes), or reading and writing (one process).
        durable : bool
            Whether a commit is synchronised with the disk before it is reported.
        threads : int, optional
            Threads that encode and decode; the processors of this machine, at most 8, when left out.
        take_lock : bool
            Whether the lock of a process on another host is taken over; be sure that it is gone.

        Returns
        -------
        ExemplarMemory
            The memory in its last committed state; leftovers of a writer that died are removed first (mode `"r+"`).

        Raises
        ------
        StoreNotFoundError
            If there is no store.
        FormatError
            If it has an unknown format version or broken metadata.
        LockedError
            If another process has it open for writing (mode `"r+"`).
        SchemaError
            If the mode is unknown.
        """
        if mode not in {"r", "r+"}:
            raise SchemaError(f"unknown mode {mode!r}; choose one of ['r', 'r+']")
        writable = mode == "r+"
        return cls(open_store(place, writable=writable, durable=durable, threads=threads, take_lock=take_lock))

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is not None and self._store.writer is not None:
            self.discard()
        self.close()

    def __len__(self) -> int:
        return len(self._store.catalog)

    @property
    def location(self) -> str:
        """Where the memory lies."""
        return self._store.location

    @property
    def schema(self) -> Schema:
        """What every exemplar holds."""
        return self._store.layout.schema

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots that hold an exemplar, increasing, shape (N,), int64; the staged ones last."""
        return self._store.catalog.slots

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each slot of `slots`, shape (N,), int64."""
        return self._store.catalog.column("label")

    @property
    def priorities(self) -> NDArray[np.float64]:
        """Priority of each slot of `slots`, shape (N,), float64."""
        return self._store.catalog.priorities

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each slot of `slots`, shape (N,), int64: payloads, checksums, index entries, rows uncompressed."""
        return self._store.sizes()

    @property
    def eviction(self) -> str:
        """Who goes first when bytes are needed: `by_class` or `by_priority`."""
        return self._store.eviction

    @property
    def max_bytes(self) -> int:
        """The budget."""
        return self._store.max_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of all objects of the store, of what is staged, and of all charges."""
        return self._store.measure().objects_bytes + sum(self._store.charges.values())

    @property
    def free_bytes(self) -> int:
        """Bytes left for more exemplars, the room that is held back for rewriting a shard not among them."""
        return max(0, self._capacity - sum(self._store.measure()))

    @property
    def charges(self) -> dict[str, int]:
        """Bytes that a learner accounts for elsewhere, by name."""
        return dict(self._store.charges)

    @property
    def next_slot(self) -> int:
        """The number the next exemplar gets, or a higher one."""
        return self._store.next_slot

    @property
    def generation(self) -> int:
        """Number of commits and evictions so far."""
        return self._store.catalog.generation

    def summary(self) -> dict[int, ClassSummary]:
        """Return what is held of each class, by label."""
        return summarise(self._store, self._capacity)

    def read(self, slots: ArrayLike) -> TokenBatch:
        """Read exemplars into one padded batch, in the order asked; staged ones have to be committed first.

        Parameters
        ----------
        slots : array-like, shape (B,), integer
            Slots; one may occur several times.

        Returns
        -------
        TokenBatch
            The exemplars, padded to the longest of the batch.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar or is not committed.
        CorruptExemplarError
            If stored bytes are damaged; all other exemplars can still be read.
        StaleSnapshotError
            If the writer has reclaimed an exemplar since this reader's snapshot.
        """
        return self._store.reader.read(self._store.catalog, slots)

    def plan_add(self, exemplars: Sequence[Exemplar] | TokenBatch) -> AddPlan:
        """Say what `add` would do, and do nothing.

        Parameters
        ----------
        exemplars : sequence of Exemplar, or TokenBatch
            What would be added.

        Returns
        -------
        AddPlan
            Slots that would go and exemplars that would come.

        Raises
        ------
        InvalidExemplarError
            If an exemplar does not fit the schema.
        ExemplarTooLargeError
            If an exemplar could not be stored even in an empty memory.
        ReadOnlyError
            If the memory was opened for reading: what a writer has staged is not known here.
        """
        self._writer()
        return self._policy.plan(self._store.encode([*exemplars]), self._capacity)

    def add(self, exemplars: Sequence[Exemplar] | TokenBatch) -> AddReport:
        """Add exemplars, evicting by policy what the budget does not hold; visible to readers after `commit()`.

        Parameters
        ----------
        exemplars : sequence of Exemplar, or TokenBatch
            What to add.

        Returns
        -------
        AddReport
            The slots given, the slots evicted, the bytes added.

        Raises
        ------
        InvalidExemplarError
            If an exemplar does not fit the schema; nothing was stored or evicted.
        ExemplarTooLargeError
            If an exemplar could not be stored even in an empty memory; nothing was stored or evicted.
        """
        self._writer()
        encoded = self._store.encode([*exemplars])
        plan = self._policy.plan(encoded, self._capacity)
        admitted = [encoded[index] for index in plan.admitted]
        added_bytes = sum(sum(exemplar.payload_bytes.values()) for exemplar in admitted)
        gone = self._policy.evict(plan.victims.tolist())
        slots = np.full(len(encoded), -1, np.int64)
        slots[plan.admitted] = self._policy.stage(admitted)
        return AddReport(slots, plan.victims, gone, added_bytes)

    def evict(self, slots: ArrayLike) -> None:
        """Evict exemplars at once.

        Parameters
        ----------
        slots : array-like, shape (V,), integer
            Slots that hold an exemplar.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar; nothing was evicted.
        """
        self._writer()
        self._policy.evict(np.unique(np.asarray(slots, np.int64)).tolist())

    def commit(self) -> None:
        """Make what was added durable and visible, all or nothing."""
        self._writer().commit()

    def discard(self) -> None:
        """Forget what was added since the last commit; evictions stay."""
        self._writer().discard()
        self._policy.forget()

    def resize(self, max_bytes: int | str) -> NDArray[np.int64]:
        """Change the budget; going down evicts by policy first.

        Parameters
        ----------
        max_bytes : int or str
            The new budget.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots evicted.

        Raises
        ------
        BudgetTooSmallError
            If the new budget is below what the store needs without any exemplar; nothing was changed.
        """
        self._writer()
        budget = parse_bytes(max_bytes)
        victims = self._policy.make_room(budget - sum(self._store.charges.values()), "budget", budget)
        self._store.put_root(max_bytes=budget, charges=self._store.charges)
        return victims

    def charge(self, name: str, nbytes: int) -> NDArray[np.int64]:
        """Account for bytes that a learner keeps elsewhere under the same budget; 0 ends the charge.

        Parameters
        ----------
        name : str
            What is kept; a second charge of the same name replaces the first.
        nbytes : int
            Its bytes, 0 or more.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots evicted to make room.

        Raises
        ------
        SchemaError
            If the bytes are negative.
        BudgetTooSmallError
            If the budget could not hold the charge even without exemplars; nothing was changed.
        """
        self._writer()
        charges = {key: size for key, size in self._store.charges.items() if key != name}
        if parse_bytes(nbytes):
            charges[name] = parse_bytes(nbytes)
        victims = self._policy.make_room(self.max_bytes - sum(charges.values()), f"charge {name!r}", nbytes)
        self._store.put_root(max_bytes=self.max_bytes, charges=charges)
        return victims

    def refresh(self) -> None:
        """See what the writer has committed since this memory was opened (mode `"r"`)."""
        self._store.refresh()

    def close(self) -> None:
        """Commit what is staged and give the lock back; closing twice is no error."""
        self._store.close()

    @property
    def _capacity(self) -> int:
        return self.max_bytes - sum(self._store.charges.values())

    def _writer(self) -> Writer:
        if self._store.writer is None:
            raise ReadOnlyError(f"{self.location} is closed or open for reading; open it with mode 'r+'")
        return self._store.writer
