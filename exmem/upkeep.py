"""Looking after a store: what takes its bytes, what is damaged; drop that, and pack what is left."""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exmem.errors import BudgetTooSmallError, StoreExistsError
from exmem.store import Damage, Place, create_store, encoded_batches, open_store

__all__ = ["CompactReport", "Damage", "RepairReport", "check", "compact", "describe", "repair", "sizes_by_modality"]


@dataclasses.dataclass(frozen=True)
class RepairReport:
    """What a repair did.

    Parameters
    ----------
    damage : tuple of Damage
        What was found.
    dropped : tuple of int
        Slots that were dropped, because they could not be read.
    left : tuple of Damage
        What is still damaged; empty when the store is whole again.
    """

    damage: tuple[Damage, ...]
    dropped: tuple[int, ...]
    left: tuple[Damage, ...]


@dataclasses.dataclass(frozen=True)
class CompactReport:
    """What compacting did.

    Parameters
    ----------
    before_bytes : int
        Bytes of all objects before.
    after_bytes : int
        Bytes of all objects now.
    slots : dict of int to int
        Old slot -> new slot.
    """

    before_bytes: int
    after_bytes: int
    slots: dict[int, int]


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
        If the metadata of the root or of the catalog is damaged: then nothing can be told of the rest.
    """
    store = open_store(place, writable=False, durable=False, threads=threads, repairing=True)
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
        If the metadata of the root or of the catalog is damaged: this cannot be repaired.
    LockedError
        If another process has it open for writing.
    """
    store = open_store(place, writable=True, durable=True, threads=threads, repairing=True)
    try:
        held = set(store.catalog.slots.tolist())
        described = {slot for chunk in store.catalog.damaged for slot in store.catalog.slots_of(chunk)}
        damage = store.repair()
        dropped = (held | described) - set(store.catalog.slots.tolist())
        return RepairReport(tuple(damage), tuple(sorted(dropped)), tuple(store.check()))
    finally:
        store.close()


def compact(path: str | os.PathLike[str], *, threads: int | None = None) -> CompactReport:
    """Pack the exemplars of a local store into as few shards and chunks as they need; they get new slots.

    Payloads are copied bit for bit into a new folder beside the old one, which then takes its place; the disk needs
    room for both meanwhile. An interrupted call leaves the store as it was, or packed; only if it is cut off between
    the two renames the store lies in `.NAME.before-compacting`, and calling again puts it back first.

    Parameters
    ----------
    path : path
        Folder of the store; no other process may have it open.
    threads : int, optional
        Threads that encode.

    Returns
    -------
    CompactReport
        Bytes before and after, and the new slots.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    LockedError
        If another process has it open for writing.
    BudgetTooSmallError
        If the packed store would not fit the budget.
    StoreExistsError
        If something else lies where the new folder has to be.
    """
    folder = Path(path).expanduser().absolute()
    packed, old = (folder.with_name(f".{folder.name}.{name}") for name in ("compacting", "before-compacting"))
    if old.exists() and not folder.exists():
        old.rename(folder)  # an earlier call was cut off between the two renames
    for left in (packed, old):
        if left.exists() and not (left / "zarr.json").exists() and any(left.iterdir()):
            raise StoreExistsError(f"{left} is in the way and no store; move it")
        shutil.rmtree(left, ignore_errors=True)
    store = open_store(folder, writable=True, durable=True, threads=threads)
    before, slots = store.measure().objects_bytes, []
    root = store.root._replace(schema=store.layout.schema)  # with the codecs as the arrays record them
    try:
        new = create_store(packed, root, durable=True, threads=threads)
        for batch in encoded_batches(store):
            if new.writer is not None:
                slots += new.writer.stage(batch)
        needed = sum(new.measure())
        if needed > root.capacity:
            raise BudgetTooSmallError(f"{folder}: packed it would need {needed:,} bytes of {root.capacity:,}")
        held = store.catalog.slots.tolist()
        new.close()
        store.close()
    except BaseException:
        shutil.rmtree(packed, ignore_errors=True)
        store.close()
        raise
    folder.rename(old)
    packed.rename(folder)
    shutil.rmtree(old)
    return CompactReport(before, _bytes_of(folder), dict(zip(held, slots, strict=True)))


def sizes_by_modality(place: Place, slots: Sequence[int]) -> dict[str, NDArray[np.int64]]:
    """Say what each modality of some exemplars takes; together they are `ExemplarMemory.sizes`.

    Parameters
    ----------
    place : path or zarr store
        Where the store lies.
    slots : sequence of int
        Slots that hold an exemplar.

    Returns
    -------
    dict of str to ndarray, shape (B,), int64
        Bytes by modality, in the order of the slots: payloads, checksums, index entries, rows uncompressed. The entry
        `extras` is there when the schema has extra fields.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    UnknownSlotError
        If a slot holds no exemplar.
    """
    store = open_store(place, writable=False, durable=False, threads=1)
    try:
        return store.sizes_by_part(slots)
    finally:
        store.close()


def _bytes_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


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
