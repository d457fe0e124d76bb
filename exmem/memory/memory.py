"""`ExemplarMemory`: all exemplars under one budget of bytes."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import SchemaError
from exmem.memory.batches import exemplars_of
from exmem.memory.encoded import EncodedExemplars, encoded_rows
from exmem.memory.holdings import EVICTIONS
from exmem.memory.quota import Quota
from exmem.memory.reports import AddPlan, AddReport
from exmem.memory.settings import Settings, checked_count
from exmem.store import Place, create_store, open_store, parse_bytes
from exmem.tokens import Exemplar, Schema, TokenBatch
from exmem.tokens.checks import choice, flag

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ExemplarMemory"]


class ExemplarMemory(Settings):
    """All exemplars under one budget of bytes; made by `create` or `open`.

    Adding encodes exemplars and holds them until `commit()`; full segments of them are written earlier but are not
    visible to readers before it. When the budget does not hold all, the class that is farthest above its quota loses
    its exemplars of lowest priority first, old or new; of equal priorities the newest goes. Evictions, updates and
    changes of the budget are committed at once. `with memory:` commits at the end, and discards what is not committed
    when an error leaves the block.

    One process and one object may write (`create`, `open(mode="r+")`), any number may read (`open(mode="r")`); a reader
    sees the state of its opening until `refresh()`. A copy or a pickle of a memory is a reader of the same place. A
    memory is not for use from several threads at once. Every method that changes a memory opened for reading, closed,
    or inherited by a forked process raises `ReadOnlyError`, and `StoreIOError` when the storage fails: the state before
    the call then holds (of an add that evicts: that after the eviction; a resize or charge is carried through by the
    next change), and the change may be tried again.
    """

    @classmethod
    def create(
        cls,
        place: Place,
        *,
        schema: Schema,
        max_bytes: int | str,
        eviction: Literal["by_class", "by_priority"] = "by_class",
        quota: Literal["bytes", "counts"] = "bytes",
        max_exemplars: int | None = None,
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
            the lowest priority of all whatever its class (for a stream: see `exmem.memory.reservoir`).
        quota : {"bytes", "counts"}
            What classes have equal shares of until `weigh` says otherwise: bytes, or exemplars. Only for `by_class`.
        max_exemplars : int, optional
            The most exemplars that are held, beside the budget of bytes.
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
        SchemaError
            If the place or the schema cannot be used, or the eviction or the quota is unknown.
        CodecError
            If a codec is unknown or cannot take the tokens of its modality.
        LockedError
            If another process makes a store there.
        StoreIOError, ReadOnlyError
            If the place cannot be written.
        """
        if not isinstance(schema, Schema):
            raise SchemaError(f"expected a Schema, got {type(schema).__name__}")
        choice(eviction, "eviction", EVICTIONS)
        shared = Quota(unit=quota)
        if eviction == "by_priority" and shared != Quota():
            raise SchemaError("eviction 'by_priority' knows no classes, so it takes no quota; make it 'by_class'")
        store = create_store(
            place,
            schema,
            max_bytes=parse_bytes(max_bytes),
            settings={"eviction": eviction, "quota": shared.to_json()},
            max_exemplars=checked_count(max_exemplars),
            durable=flag(durable, "durable"),
            threads=threads,
        )
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
        verify: Literal["once", "always"] = "once",
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
        verify : {"once", "always"}
            When checksums of payloads are compared: at the first read and after a file changed, or at every read.

        Returns
        -------
        ExemplarMemory
            The memory in its last committed state; leftovers of a writer that died are removed first (mode `"r+"`), and
            a resize or charge that it did not finish is finished.

        Raises
        ------
        StoreNotFoundError
            If there is no store.
        FormatError
            If it has an unknown format version, or damaged metadata or a damaged catalog.
        LockedError
            If another process has it open for writing (mode `"r+"`).
        SchemaError
            If the place or an option cannot be used.
        """
        choice(mode, "mode", ("r", "r+"))
        choice(verify, "verify", ("once", "always"))
        store = open_store(
            place,
            writable=mode == "r+",
            durable=flag(durable, "durable"),
            threads=threads,
            take_lock=flag(take_lock, "take_lock"),
            verify=verify,
        )
        try:
            return cls(store)
        except BaseException:
            store.abandon()
            raise

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            if kind is not None and self._store.writer is not None and self._store.writer.is_owner:
                self.discard()
        finally:
            self.close()

    def __reduce__(self) -> tuple[Callable[..., "ExemplarMemory"], tuple[Place]]:
        return _reopened, (self._store.place,)

    def encode(self, exemplars: Sequence[Exemplar] | TokenBatch) -> EncodedExemplars:
        """Encode exemplars and store nothing; `plan_add` and `add` then need not encode them again.

        Parameters
        ----------
        exemplars : sequence of Exemplar, or TokenBatch
            What may be added.

        Returns
        -------
        EncodedExemplars
            Their payloads, with their sizes.

        Raises
        ------
        InvalidExemplarError
            If an exemplar does not fit the schema.
        """
        return EncodedExemplars(encoded_rows(self._store, exemplars))

    def plan_add(self, exemplars: Sequence[Exemplar] | TokenBatch | EncodedExemplars) -> AddPlan:
        """Say what `add` would do, and do nothing.

        Parameters
        ----------
        exemplars : sequence of Exemplar, TokenBatch, or EncodedExemplars
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
        self._ready(settled=False)
        rows = encoded_rows(self._store, exemplars)
        victims, down = self._policy.plan(rows)
        admitted = np.setdiff1d(np.arange(len(rows)), down).astype(np.int64)
        return AddPlan(victims, admitted, self.next_slot, EncodedExemplars(rows))

    def add(self, exemplars: Sequence[Exemplar] | TokenBatch | EncodedExemplars) -> AddReport:
        """Add exemplars, evicting by policy what the budget does not hold; visible to readers after `commit()`.

        Parameters
        ----------
        exemplars : sequence of Exemplar, TokenBatch, or EncodedExemplars
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
        BudgetError
            If files that are not of this memory fill its budget; nothing was stored or evicted.
        """
        self._ready()
        return self._policy.add(encoded_rows(self._store, exemplars))

    def _add_to_stream(self, exemplars: Sequence[Exemplar], stream: Mapping[str, Any], arrivals: int) -> AddReport:
        """Add those of some arrivals that are above a stream's threshold, and its state after all of them."""
        self._ready()
        return self._policy.add(self._store.encode(exemplars), stream=stream, arrivals=arrivals)

    def add_batch(
        self,
        tokens: Mapping[str, ArrayLike],
        labels: ArrayLike,
        *,
        keep: Mapping[str, ArrayLike] | None = None,
        priorities: ArrayLike | None = None,
        extras: Mapping[str, ArrayLike] | None = None,
    ) -> AddReport:
        """Add exemplars given as arrays; see `add`.

        Parameters
        ----------
        tokens : mapping of str to array-like, shape (B, L, *shape)
            Values of each modality at the first L positions, all that the schema has or fewer.
        labels : array-like, shape (B,), integer
            Class of each exemplar.
        keep : mapping of str to array-like, shape (B, L), bool, optional
            Which tokens are stored, by modality; all of those that are left out.
        priorities : array-like, shape (B,), optional
            Ranks within the class; 0 when left out.
        extras : mapping of str to array-like, shape (B, ...), optional
            One entry per extra field of the schema.

        Returns
        -------
        AddReport
            As `add`.

        Raises
        ------
        InvalidExemplarError
            If an array does not fit the schema or the others; nothing was stored or evicted.
        ExemplarTooLargeError
            If an exemplar could not be stored even in an empty memory; nothing was stored or evicted.
        """
        return self.add(exemplars_of(tokens, labels, keep=keep, priorities=priorities, extras=extras))

    def evict(self, slots: ArrayLike) -> None:
        """Evict exemplars: all of them in one commit, whatever their number.

        Parameters
        ----------
        slots : array-like, shape (V,), integer
            Slots that hold an exemplar; for a mask use `memory.slots[mask]`.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar, or these are no slots; nothing was evicted.
        """
        self._ready()
        catalog = self._store.catalog
        distinct = np.unique(catalog.slots_at(catalog.find(slots)))
        if len(distinct):
            self._policy.evict(distinct)

    def evict_class(self, label: int) -> NDArray[np.int64]:
        """Evict all exemplars of a class; none is no error.

        Parameters
        ----------
        label : int
            Class, as in `Exemplar.label`.

        Returns
        -------
        ndarray, shape (V,), int64
            The slots evicted.
        """
        slots = self.slots_of(label)
        self.evict(slots)
        return slots

    def update(
        self, slots: ArrayLike, *, priority: ArrayLike | None = None, extras: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.int64]:
        """Give exemplars another priority or other extras, committed at once; slots and tokens stay.

        The exemplars are written once more, in parts of a segment's size that are each all or nothing; each costs what
        an add of it costs. What is staged is committed first.

        Parameters
        ----------
        slots : array-like, shape (B,), integer
            Slots that hold an exemplar, each once.
        priority : array-like, shape (B,) or scalar, optional
            Ranks within the class; unchanged when left out.
        extras : mapping of str to array-like, shape (B, ...), optional
            New values of the fields that are named; the others stay.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots evicted to make room, which may be among those to be changed.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar, or one is named twice; nothing was changed.
        InvalidExemplarError
            If a value does not fit; nothing was changed.
        """
        self._ready()
        changed = self._store.changed_rows(slots, priority=priority, extras={} if extras is None else extras)
        self.commit()
        return self._policy.update(changed)

    def commit(self) -> None:
        """Make what was added durable and visible, all or nothing."""
        self._ready(settled=False).commit()

    def discard(self) -> None:
        """Forget what was added since the last commit; evictions stay, and slots given since are given out again."""
        self._ready(settled=False).discard()
        self._policy.forget()

    def close(self) -> None:
        """Commit what is staged and give the lock back; closing twice is no error.

        When the commit fails, the memory stays open: try again, or `discard()` first. Where another writer took the
        lock it is closed all the same, and raises `LockedError`: what was staged is lost.
        """
        self._store.close()


def _reopened(place: Place) -> ExemplarMemory:
    return ExemplarMemory.open(place)
