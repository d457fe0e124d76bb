"""Looking after a memory: what is damaged, dropping that, and packing what is left."""

import dataclasses
from collections.abc import Sequence

from exmem.memory.memory import ExemplarMemory
from exmem.memory.reports import CompactReport
from exmem.store import Damage, Place, open_store

__all__ = ["CompactReport", "Damage", "RepairReport", "check", "compact", "describe", "repair"]


@dataclasses.dataclass(frozen=True)
class RepairReport:
    """What a repair did: the damage, the slots dropped, and what is still damaged.

    Exemplars that a damaged chunk of the catalog named are lost, too, and their slots with it: `lost` at most.
    """

    damage: tuple[Damage, ...]
    dropped: tuple[int, ...]
    left: tuple[Damage, ...]

    @property
    def lost(self) -> int:
        """How many exemplars were lost of which not even the slot is known, at most."""
        return sum(damage.unnamed for damage in self.damage)


def check(place: Place, *, threads: int | None = None) -> list[Damage]:
    """Read and decode every byte of a store and return what is not as it was written.

    What a writer evicts meanwhile is reported as missing. FormatError if the metadata of the root or the document of
    the state is damaged: then nothing can be told of the rest.
    """
    store = open_store(place, writable=False, threads=threads, repairing=True)
    try:
        return list(store.check())
    finally:
        store.close()


def repair(place: Place, *, threads: int | None = None) -> RepairReport:
    """Drop exactly the exemplars that are damaged, and write damaged metadata of arrays again.

    LockedError if another process has the store open for writing; FormatError if the metadata of the root or the
    document of the state is damaged: this cannot be repaired.
    """
    store = open_store(place, writable=True, threads=threads, repairing=True)
    try:
        damage, dropped = store.repair()
        return RepairReport(tuple(damage), tuple(dropped), tuple(store.check()))
    finally:
        store.close()


def compact(place: Place, *, threads: int | None = None) -> CompactReport:
    """Pack the exemplars of a store that no other process has open for writing into as few segments as they need.

    Slots stay; payloads are copied bit for bit.
    """
    with ExemplarMemory.open(place, "r+", threads=threads) as memory:
        return memory.compact()


def describe(damage: Sequence[Damage]) -> list[str]:
    """Write damage for people, one line each."""
    lines = []
    for entry in damage:
        number = len(entry.slots)
        slots = ", ".join(map(str, entry.slots[:8])) + (", ..." if number > 8 else "")
        what = f"exemplar{'s' if number > 1 else ''} {slots}" if number else "metadata"
        lines.append(f"{entry.file}: {what}: {entry.why}")
    return lines
