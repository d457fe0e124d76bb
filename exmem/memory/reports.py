"""What a memory says of what it holds, did and would do."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from exmem.memory.encoded import EncodedExemplars
from exmem.memory.quota import Quota, class_quotas
from exmem.store import Store

__all__ = ["AddPlan", "AddReport", "ClassSummary", "CompactReport", "summarise"]


@dataclasses.dataclass(frozen=True, eq=False)
class AddPlan:
    """What an add would do.

    Parameters
    ----------
    victims : ndarray, shape (V,), int64
        Slots that would be evicted to make room.
    admitted : ndarray, shape (M,), int64
        Indices of the exemplars that would be stored; the others rank below what the memory keeps.
        Where bytes of evicted exemplars cannot be had back at once, an add may evict, or turn away, a few more.
    first_slot : int
        The memory's `next_slot` before the add.
    encoded : EncodedExemplars
        The exemplars given: `memory.add(plan.encoded)` does what was planned and encodes nothing again.
    """

    victims: NDArray[np.int64]
    admitted: NDArray[np.int64]
    first_slot: int
    encoded: EncodedExemplars


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


@dataclasses.dataclass(frozen=True)
class CompactReport:
    """What compacting did.

    Parameters
    ----------
    before_bytes : int
        Bytes of all objects before.
    after_bytes : int
        Bytes of all objects now.
    """

    before_bytes: int
    after_bytes: int


def summarise(store: Store, quota: Quota) -> dict[int, ClassSummary]:
    """Say what is held of each class, by label."""
    labels, sizes = store.catalog.labels, store.sizes()
    present, counts = np.unique(labels, return_counts=True)
    held = dict(zip(present.tolist(), counts.tolist(), strict=True))
    used = {label: int(sizes[labels == label].sum()) for label in held}
    overhead = store.used_bytes - sum(used.values())
    weights = {label: quota.weights.get(label, 1.0) for label in held}
    if quota.unit == "counts":
        weights = {label: weight * used[label] / held[label] for label, weight in weights.items()}
    quotas = class_quotas(used, store.state.budget_bytes - max(0, overhead), weights)
    return {
        label: ClassSummary(exemplars=count, payload_bytes=used[label], quota_bytes=quotas[label])
        for label, count in held.items()
    }
