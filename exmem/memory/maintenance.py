"""Looking after a memory: what is damaged, dropping that, and packing what is left."""

import dataclasses
from collections.abc import Sequence

from exmem.memory.memory import ExemplarMemory
from exmem.memory.reports import CompactReport
from exmem.store import Damage, Place, open_store

__all__ = ["CompactReport", "Damage", "RepairReport", "check", "compact", "describe", "repair"]


@dataclasses.dataclass(frozen=True)
class RepairReport:
    """What a repair did.

    Parameters
    ----------
    damage : tuple of Damage
        What was found.
    dropped : tuple of int
        Slots that were dropped, because they could not be read; those of a damaged catalog cannot be named.
    left : tuple of Damage
        What is still damaged; empty when the store is whole again.
    """

    damage: tuple[Damage, ...]
    dropped: tuple[int, ...]
    left: tuple[Damage, ...]


def check(place: Place, *, threads: int | None = None) -> list[Damage]:
    """Read and decode every byte of a store; what a writer evicts meanwhile is reported as missing.

    Parameters
    ----------
    place : path or zarr store
        Where it lies.
    threads : int, optional
        Threads that decode.

    Returns
    -------
    list of Damage
        What is not as it was written: file, exemplars concerned, reason. Empty when all is well.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    FormatError
        If the metadata of the root or the document of the state is damaged: then nothing can be told of the rest.
    """
    store = open_store(place, writable=False, threads=threads, repairing=True)
    try:
        return list(store.check())
    finally:
        store.close()


def repair(place: Place, *, threads: int | None = None) -> RepairReport:
    """Drop exactly the exemplars that are damaged, and write damaged metadata of arrays again.

    Parameters
    ----------
    place : path or zarr store
        Where the store lies; no other process may have it open for writing.
    threads : int, optional
        Threads that decode.

    Returns
    -------
    RepairReport
        What was found, dropped and left.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    FormatError
        If the metadata of the root or the document of the state is damaged: this cannot be repaired.
    LockedError
        If another process has it open for writing.
    """
    store = open_store(place, writable=True, threads=threads, repairing=True)
    try:
        damage, dropped = store.repair()
        return RepairReport(tuple(damage), tuple(dropped), tuple(store.check()))
    finally:
        store.close()


def compact(place: Place, *, threads: int | None = None) -> CompactReport:
    """Pack the exemplars of a store into as few segments as they need; slots stay, payloads are copied bit for bit.

    Parameters
    ----------
    place : path or zarr store
        Where the store lies; no other process may have it open for writing.
    threads : int, optional
        Threads that decode.

    Returns
    -------
    CompactReport
        Bytes before and after.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    LockedError
        If another process has it open for writing.
    """
    with ExemplarMemory.open(place, "r+", threads=threads) as memory:
        return memory.compact()


def describe(damage: Sequence[Damage]) -> list[str]:
    """Write damage for people.

    Parameters
    ----------
    damage : sequence of Damage
        What was found.

    Returns
    -------
    list of str
        One line each.
    """
    lines = []
    for found in damage:
        number = len(found.slots)
        slots = ", ".join(map(str, found.slots[:8])) + (", ..." if number > 8 else "")
        what = f"exemplar{'s' if number > 1 else ''} {slots}" if number else "metadata"
        lines.append(f"{found.file}: {what}: {found.why}")
    return lines
