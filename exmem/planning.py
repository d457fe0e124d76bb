"""Deciding what a memory keeps; nothing here changes a store."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.budget import class_quotas
from exmem.errors import BudgetTooSmallError, ExemplarTooLargeError
from exmem.selection.eviction import eviction_order
from exmem.store import Encoded, Store

__all__ = ["AddPlan", "AddReport", "ClassSummary", "plan_add", "summarise"]


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
    added_bytes : int
        Encoded payload bytes of what was stored.
    """

    slots: NDArray[np.int64]
    evicted: NDArray[np.int64]
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
        What the class may use if every class that wants more than its equal share is cut to it.
    """

    exemplars: int
    payload_bytes: int
    quota_bytes: int


def plan_add(store: Store, encoded: Sequence[Encoded], capacity: int) -> AddPlan:
    """Decide what goes so that the rest, with the new exemplars, fits: the front of the eviction order.

    Parameters
    ----------
    store : Store
        What is held.
    encoded : sequence of Encoded
        New exemplars.
    capacity : int
        Bytes for the objects of the store and their reserve.

    Returns
    -------
    AddPlan
        What goes and what comes.

    Raises
    ------
    ExemplarTooLargeError
        If a new exemplar would not even fit alone.
    BudgetTooSmallError
        If the store would not fit even without exemplars.

    Notes
    -----
    Sizes are measured, not estimated: each candidate state is laid out exactly as it would be written.
    """
    held = np.concatenate([store.catalog.slots, np.array([*store.staged], np.int64)])
    ids = np.concatenate([held, -1 - np.arange(len(encoded))])  # below 0: a new exemplar
    sizes = np.concatenate([store.sizes(), np.array([store.exemplar_bytes(new) for new in encoded], np.int64)])
    others = [*store.staged.values(), *encoded]
    order = eviction_order(
        np.concatenate([store.catalog.column("label"), np.array([other.label for other in others], np.int64)]),
        np.concatenate([store.catalog.priorities, np.array([other.priority for other in others], np.float64)]),
        sizes,
    )
    count = 0
    while True:
        gone = ids[order[:count]]
        left = np.setdiff1d(np.arange(len(encoded)), -1 - gone[gone < 0])
        missing = sum(store.measure(gone[gone >= 0].tolist(), [encoded[index] for index in left])) - capacity
        if missing <= 0:
            return AddPlan(np.sort(gone[gone >= 0]), left.astype(np.int64), store.next_slot)
        if count == 0 and encoded:
            _check_fits_alone(store, held, encoded, capacity)
        if count == len(order):
            raise BudgetTooSmallError(
                f"{store.location}: {missing:,} bytes are missing even without any exemplar; raise max_bytes"
            )
        freed = np.cumsum(sizes[order[count:]])
        count += min(int(np.searchsorted(freed, missing)) + 1, len(freed))


def summarise(store: Store, capacity: int) -> dict[int, ClassSummary]:
    """Say what is held of each class.

    Parameters
    ----------
    store : Store
        What is held.
    capacity : int
        Bytes for the objects of the store and their reserve.

    Returns
    -------
    dict of int to ClassSummary
        By label.
    """
    staged = np.array([exemplar.label for exemplar in store.staged.values()], np.int64)
    labels, sizes = np.concatenate([store.catalog.column("label"), staged]), store.sizes()
    found, counts = np.unique(labels, return_counts=True)
    used = {int(label): int(sizes[labels == label].sum()) for label in found}
    overhead = sum(store.measure()) - sum(used.values())
    quotas = class_quotas(used, capacity - max(0, overhead))
    return {
        label: ClassSummary(exemplars=int(count), payload_bytes=used[label], quota_bytes=quotas[label])
        for label, count in zip(used, counts, strict=True)
    }


def _check_fits_alone(store: Store, held: NDArray[np.int64], encoded: Sequence[Encoded], capacity: int) -> None:
    sizes = [store.exemplar_bytes(exemplar) for exemplar in encoded]
    largest = int(np.argmax(sizes))
    alone = sum(store.measure(held.tolist(), [encoded[largest]]))
    if alone > capacity:
        raise ExemplarTooLargeError(
            f"exemplar {largest} of {sizes[largest]:,} bytes needs a budget of {alone:,} bytes even in an empty "
            f"memory, {capacity:,} are available; store fewer tokens of it, lower the quality, or raise max_bytes"
        )
