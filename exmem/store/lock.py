"""One writer per store: a lock object that names the holder's process, host and start time."""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from exmem.errors import LockedError
from exmem.store.budgeted import BudgetedObjects
from exmem.store.layout import LOCK_KEY, to_bytes

__all__ = ["acquire_lock", "release_lock"]


class _Holder(NamedTuple):
    pid: int
    host: str
    process_start: str | None
    since: str


def acquire_lock(objects: BudgetedObjects, *, take_lock: bool = False) -> bool:
    """Take the lock, over from a dead process of this host if need be.

    Parameters
    ----------
    objects : BudgetedObjects
        The store.
    take_lock : bool
        Whether it is taken over from another host too, and from whoever holds it where that cannot be told.

    Returns
    -------
    bool
        True when the previous writer died without closing the store.

    Raises
    ------
    LockedError
        If a living process of this host holds it, or a process of another host.

    Notes
    -----
    On a local disk the operating system holds the lock, and gives it back when the process dies: two processes never
    hold it at once. Elsewhere the lock is an object that is looked for and then put; two writers that start in the same
    instant are told apart only where the store puts conditionally.
    """
    mine = _Holder(os.getpid(), socket.gethostname(), _process_start(os.getpid()), _now())
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"exmem": mine._asdict()}}
    data = to_bytes(document)  # a Zarr group, because some stores take nothing else
    while True:
        held, before = objects.hold(LOCK_KEY, data, take=False)
        if held and before is None:
            return False
        holder = _read(before)
        elsewhere = holder is not None and holder.host != mine.host
        gone = held or (holder is not None and _process_start(holder.pid) != holder.process_start)
        if ((gone and not elsewhere) or take_lock) and objects.hold(LOCK_KEY, data, take=True)[0]:
            return True
        if held:
            objects.let_go(LOCK_KEY, keep=True)
        if before is None:
            continue  # it was given back between two looks
        who = (
            f"process {holder.pid} on {holder.host} since {holder.since}" if holder else "a writer that cannot be read"
        )
        raise LockedError(
            f"{objects.location} is open for writing by {who}; close it there, open with mode 'r', or, if that process "
            "is surely gone, open with take_lock=True"
        )


def release_lock(objects: BudgetedObjects, *, keep: bool = False) -> None:
    """Give the lock back.

    Parameters
    ----------
    objects : BudgetedObjects
        The store.
    keep : bool
        Whether the lock object stays, as if this writer had died.
    """
    objects.let_go(LOCK_KEY, keep=keep)


def _read(data: bytes | None) -> _Holder | None:
    try:
        own = json.loads(data or b"")["attributes"]["exmem"]
        start = own["process_start"]
        return _Holder(int(own["pid"]), str(own["host"]), start if start is None else str(start), str(own["since"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _process_start(pid: int) -> str | None:
    """Return when a process started (so that a reused pid is not taken for the holder), None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5): start time in ticks since boot
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
