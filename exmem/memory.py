"""The exemplar memory: what other code embeds."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.budget import Quota, parse_bytes
from exmem.errors import ReadOnlyError, SchemaError
from exmem.holdings import Holdings
from exmem.planning import AddPlan, AddReport, ClassSummary, Policy
from exmem.store import Place, Root, Store, Writer, create_store, open_store
from exmem.tokens import Exemplar, Schema, TokenBatch

if TYPE_CHECKING:
    from typing import Self

__all__ = ["AddPlan", "AddReport", "ClassSummary", "ExemplarMemory"]


class ExemplarMemory(Holdings):
    """All exemplars under one budget of bytes; made by `create` or `open`.

    Adding encodes exemplars and holds them until `commit()`; a full shard of them is written earlier but is not
    visible before the commit. When the budget does not hold all, the class that is farthest above its quota loses its
    exemplars of lowest priority first, old or new; of equal priorities the newest goes. `with memory:` commits at the
    end, and discards what is not committed when an error leaves the block.

    One process may write (`create`, `open(mode="r+")`), any number may read (`open(mode="r")`); a reader sees the state
    of its opening until `refresh()`. A memory is not for use from several threads at once. Every method that changes a
    memory opened for reading, or closed, raises `ReadOnlyError`, and `StoreIOError` when the storage fails: the last
    committed state then holds, and the change may be tried again.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._policy = Policy(store)

    @classmethod
    def create(
        cls,
        place: Place,
        *,
        schema: Schema,
        max_bytes: int | str,
        eviction: Literal["by_class", "by_priority"] = "by_class",
        quota: Literal["bytes", "counts"] = "bytes",
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
            Who goes first when bytes are needed: the lowest priority of the class that is farthest above its quota, or
            the lowest priority of all whatever its class (for a stream: see `exmem.stream`).
        quota : {"bytes", "counts"}
            What classes have equal shares of until `weigh` says otherwise: bytes, or exemplars. Only for `by_class`.
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
            If the schema or one of its codecs cannot be used, or the eviction or the quota is unknown.
        StoreIOError, ReadOnlyError
            If the place cannot be written.
        """
        root = Root(schema, parse_bytes(max_bytes), {}, eviction, Quota(unit=quota))
        return cls(create_store(place, root, durable=durable, threads=threads))

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
        return self._policy.plan(self._store.encode([*exemplars]))

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
        plan = self._policy.plan(encoded)
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

        Notes
        -----
        Going down leaves what a memory of the new budget would have kept of the same adds: exactly so in the order of
        eviction (see `exmem.selection.Ledger` for what that asks of the adds), and with large exemplars, each a shard
        of its own. Where exemplars share shards, the layout of this memory remains: shards made for the larger budget,
        with gaps. Its bytes, about those of a shard or two, are missing for the last exemplars of the order.
        """
        self._writer()
        root = self._store.root._replace(max_bytes=parse_bytes(max_bytes))
        return self._policy.change_root(root, f"budget of {root.max_bytes:,} bytes")

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
        root = self._store.root
        charges = {key: size for key, size in root.charges.items() if key != name}
        if parse_bytes(nbytes):
            charges[name] = parse_bytes(nbytes)
        return self._policy.change_root(root._replace(charges=charges), f"charge {name!r} of {nbytes:,} bytes")

    def weigh(
        self, weights: Mapping[int, float] | Callable[[dict[int, ClassSummary]], Mapping[int, float]]
    ) -> NDArray[np.int64]:
        """Set shares of classes in the quota; what exceeds them goes when bytes are needed next.

        A class of weight 2 may hold twice the bytes (or exemplars) of a class of weight 1 before it loses any. For
        shares by frequency give each class the number of its examples, before its first exemplars are added: beside
        weights of hundreds, a class that is not weighed yet keeps next to nothing.

        Parameters
        ----------
        weights : mapping of int to float, or callable
            Label -> weight, 1e-12..1e12; classes that are left out keep theirs, which is 1 from the start. A function
            is called with `summary()` and returns them; the weights are stored, the function is not.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots evicted, where the metadata grows beyond the budget.

        Raises
        ------
        SchemaError
            If a label or a weight is none, or the memory evicts by priority; nothing was changed.
        BudgetTooSmallError
            If the budget could not hold the weights even without exemplars; nothing was changed.
        """
        self._writer()
        root = self._store.root
        given = weights(self.summary()) if callable(weights) else weights
        quota = Quota(unit=root.quota.unit, weights={**root.quota.weights, **given})
        return self._policy.change_root(root._replace(quota=quota), f"weights of {len(quota.weights):,} classes")

    def close(self) -> None:
        """Commit what is staged and give the lock back; closing twice is no error."""
        self._store.close()

    def _writer(self) -> Writer:
        if self._store.writer is None:
            raise ReadOnlyError(f"{self.location} is closed or open for reading; open it with mode 'r+'")
        return self._store.writer
