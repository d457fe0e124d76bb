"""Deciding what a memory keeps."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.budget import Quota, class_quotas
from exmem.errors import BudgetTooSmallError, ExemplarTooLargeError, ReadOnlyError
from exmem.selection import Candidate, Ledger
from exmem.store import Encoded, Root, Store, Writer, check_root

__all__ = ["AddPlan", "AddReport", "ClassSummary", "Policy", "summarise"]


@dataclasses.dataclass(frozen=True, eq=False)
class AddPlan:
    """What an add would do.

    Parameters
    ----------
    victims : ndarray, shape (V,), int64
        Slots that would be evicted to make room.
    admitted : ndarray, shape (M,), int64
        Indices of the exemplars that would be stored; the others rank below what the memory keeps.
    first_slot : int
        The memory's `next_slot` before the add.
    """

    victims: NDArray[np.int64]
    admitted: NDArray[np.int64]
    first_slot: int


@dataclasses.dataclass(frozen=True, eq=False)
class AddReport:
    """What an add did.

    Parameters
    ----------
    slots : ndarray, shape (N,), int64
        Slot of each exemplar given; -1 where it was not stored because it ranks below what the memory keeps.
    evicted : ndarray, shape (V,), int64
        Slots evicted to make room.
    evicted_priorities : ndarray, shape (V,), float64
        Their priorities.
    added_bytes : int
        Encoded payload bytes of what was stored.
    """

    slots: NDArray[np.int64]
    evicted: NDArray[np.int64]
    evicted_priorities: NDArray[np.float64]
    added_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """What the memory holds of one class.

    Parameters
    ----------
    exemplars : int
        Exemplars held.
    payload_bytes : int
        Their bytes: encoded payloads, checksums and index entries, and their rows before compression.
    quota_bytes : int
        What the class may use if every class that wants more than its share is cut to it; where the quota goes by
        counts, the bytes of so many exemplars of its mean size.
    """

    exemplars: int
    payload_bytes: int
    quota_bytes: int


class Policy:
    """Decides who comes and who goes, and carries it out; the order of eviction is made when it is needed first.

    Parameters
    ----------
    store : Store
        What is held.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ledger: Ledger | None = None

    def plan(self, encoded: Sequence[Encoded]) -> AddPlan:
        """Decide what goes so that the rest, with new exemplars, fits: the front of the eviction order.

        Parameters
        ----------
        encoded : sequence of Encoded
            New exemplars.

        Returns
        -------
        AddPlan
            What goes and what comes; nothing was changed.

        Raises
        ------
        ExemplarTooLargeError
            If a new exemplar would not even fit alone.
        BudgetTooSmallError
            If the store would not fit even without exemplars.

        Notes
        -----
        Sizes are measured, not estimated: each candidate state is laid out exactly as it would be written. Only where
        an upper bound fits is measuring left out; the answer is the same. What goes takes more with it than its own
        bytes (the largest shard shrinks, and the reserve with it), so a few more may go than have to.
        """
        return self._plan(encoded, self._store.root.capacity, self._store.root.quota)

    def stage(self, encoded: Sequence[Encoded]) -> list[int]:
        """Stage exemplars that were admitted.

        Parameters
        ----------
        encoded : sequence of Encoded
            Exemplars.

        Returns
        -------
        list of int
            Their slots.
        """
        slots = self._writer().stage(encoded)
        if self._ledger is not None:
            self._ledger.add(slots, self._candidates(encoded))
        return slots

    def evict(self, slots: list[int]) -> NDArray[np.float64]:
        """Evict exemplars.

        Parameters
        ----------
        slots : list of int
            Slots, increasing.

        Returns
        -------
        ndarray, shape (V,), float64
            Their priorities.

        Raises
        ------
        UnknownSlotError
            If one holds no exemplar; nothing was evicted.
        """
        rows, priorities = self._store.catalog.rows(slots), self._store.catalog.priorities_of(slots)
        if not slots:
            return priorities
        sizes = self._store.sizes_of(slots)
        labels = self._groups(rows[:, 0]).tolist()  # column 0: the class
        gone = list(map(Candidate, labels, priorities.tolist(), sizes.tolist()))
        ledger, self._ledger = self._ledger, None  # it is made again should evicting fail half way
        self._writer().evict(slots)
        if ledger is not None:
            ledger.remove(slots, gone)
            self._ledger = ledger
        return priorities

    def change_root(self, root: Root, what: str) -> NDArray[np.int64]:
        """Evict until everything fits what the root is to say, by the quota it is to say, then have it say so.

        Parameters
        ----------
        root : Root
            Budget, charges and quota as they are to be.
        what : str
            What is changed, for messages.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots that were evicted.

        Raises
        ------
        SchemaError
            If it has a quota for classes that its eviction does not know; nothing was changed.
        BudgetTooSmallError
            If it would not fit even without exemplars; nothing was changed.
        """
        forecast = self._writer().forecast
        check_root(root)
        capacity = root.capacity - 2 * self._store.growth(root)  # itself, and the room to rewrite it
        minimum = sum(forecast.measure(self._store.catalog.slots.tolist(), []))
        if minimum > capacity:
            raise BudgetTooSmallError(
                f"{what}: {capacity:,} bytes are left for the store, which needs {minimum:,} even without exemplars; "
                "nothing was changed"
            )
        victims = self._plan([], capacity, root.quota).victims
        self.evict(victims.tolist())
        self._store.put_root(root)
        return victims

    def forget(self) -> None:
        """Make the order again when it is needed next: the store was changed otherwise."""
        self._ledger = None

    def _plan(self, encoded: Sequence[Encoded], capacity: int, quota: Quota) -> AddPlan:
        store, forecast, everything = self._store, self._writer().forecast, np.arange(len(encoded))
        fits = bool(encoded) and forecast.bound(encoded) <= capacity
        missing = 0 if fits else sum(forecast.measure([], encoded)) - capacity
        if missing <= 0:
            return AddPlan(np.zeros(0, np.int64), everything, store.next_slot)
        offered = self._candidates(encoded)
        if encoded:
            self._check_fits_alone(encoded, offered, capacity)
        going = self._order().victims(lambda slot: int(store.sizes_of([slot])[0]), offered, quota=quota)
        gone: list[int] = []
        while missing > 0:
            more = list(_enough(going, missing))
            if not more:
                raise BudgetTooSmallError(
                    f"{store.location}: {missing:,} bytes are missing even without any exemplar; raise max_bytes"
                )
            gone += more
            turned_down = {-1 - victim for victim in gone if victim < 0}
            left = [new for index, new in enumerate(encoded) if index not in turned_down]
            missing = sum(forecast.measure([slot for slot in gone if slot >= 0], left)) - capacity
        victims = np.sort(np.array([slot for slot in gone if slot >= 0], np.int64))
        return AddPlan(victims, np.setdiff1d(everything, [*turned_down]).astype(np.int64), store.next_slot)

    def _order(self) -> Ledger:
        if self._ledger is None:
            catalog = self._store.catalog
            labels = self._groups(catalog.column("label"))
            self._ledger = Ledger(catalog.slots, labels, catalog.priorities, self._store.sizes())
        return self._ledger

    def _groups(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what competes among itself: classes, or everything as one."""
        return labels if self._store.root.eviction == "by_class" else np.zeros_like(labels)

    def _candidates(self, encoded: Sequence[Encoded]) -> list[Candidate]:
        labels = self._groups(np.array([new.label for new in encoded], np.int64)).tolist()
        return [
            Candidate(label, new.priority, self._store.exemplar_bytes(new))
            for label, new in zip(labels, encoded, strict=True)
        ]

    def _check_fits_alone(self, encoded: Sequence[Encoded], offered: Sequence[Candidate], capacity: int) -> None:
        largest = max(range(len(offered)), key=lambda index: (offered[index].size, -index))
        forecast = self._writer().forecast
        if forecast.bound_alone(encoded[largest]) <= capacity:
            return
        alone = sum(forecast.measure(self._store.catalog.slots.tolist(), [encoded[largest]]))
        if alone > capacity:
            raise ExemplarTooLargeError(
                f"exemplar {largest} of {offered[largest].size:,} bytes needs a budget of {alone:,} bytes even in an "
                f"empty memory, {capacity:,} are available; store fewer tokens of it, lower the quality, or raise "
                "max_bytes"
            )

    def _writer(self) -> Writer:
        if self._store.writer is None:
            raise ReadOnlyError(f"{self._store.location} is closed or open for reading; open it with mode 'r+'")
        return self._store.writer


def _enough(going: Iterator[tuple[int, int]], missing: int) -> Iterator[int]:
    for victim, size in going:
        yield victim
        missing -= size
        if missing <= 0:
            return


def summarise(store: Store) -> dict[int, ClassSummary]:
    """Say what is held of each class.

    Parameters
    ----------
    store : Store
        What is held.

    Returns
    -------
    dict of int to ClassSummary
        By label.
    """
    labels, sizes, quota = store.catalog.column("label"), store.sizes(), store.root.quota
    found, counts = np.unique(labels, return_counts=True)
    held = dict(zip(found.tolist(), counts.tolist(), strict=True))
    used = {label: int(sizes[labels == label].sum()) for label in held}
    overhead = sum(store.measure()) - sum(used.values())
    weights = {label: quota.weights.get(label, 1.0) for label in held}
    if quota.unit == "counts":
        weights = {label: weight * used[label] / held[label] for label, weight in weights.items()}
    quotas = class_quotas(used, store.root.capacity - max(0, overhead), weights)
    return {
        label: ClassSummary(exemplars=count, payload_bytes=used[label], quota_bytes=quotas[label])
        for label, count in held.items()
    }
