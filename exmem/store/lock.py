"""One writer per store: a lock object with the holder's process, host and start time."""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from exmem.errors import LockedError
from exmem.store.layout import LOCK_KEY
from exmem.store.objects import BudgetedObjects

__all__ = ["acquire_lock", "release_lock"]


def acquire_lock(objects: BudgetedObjects) -> bool:
    """Take the lock, over from a dead process of this host if need be.

    Parameters
    ----------
    objects : BudgetedObjects
        The store.

    Returns
    -------
    bool
        True when the previous writer died without closing the store.

    Raises
    ------
    LockedError
        If a living process, or one of another host, holds it.
    """
    started = _process_start(os.getpid())
    mine = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_start": started,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    taken_over = False
    while not objects.put_new(LOCK_KEY, json.dumps(mine).encode()):
        held = objects.objects.get(LOCK_KEY)
        if held is None:  # released between the two calls
            continue
        try:
            holder = json.loads(held)
            pid, host, process_start = int(holder["pid"]), str(holder["host"]), holder.get("process_start")
        except (ValueError, KeyError, TypeError) as error:
            raise LockedError(f"{objects.location}: {LOCK_KEY} is broken; delete it if no process writes") from error
        running = _process_start(pid)
        if host != mine["host"] or (running is not None and running == process_start):
            raise LockedError(
                f"{objects.location} is open for writing by process {pid} on {host} since {holder.get('since')}; "
                f"close it there, open with mode 'r', or delete {LOCK_KEY} if that process is gone"
            )
        objects.delete(LOCK_KEY)
        taken_over = True
    return taken_over


def release_lock(objects: BudgetedObjects) -> None:
    """Give the lock back.

    Parameters
    ----------
    objects : BudgetedObjects
        The store.
    """
    objects.delete(LOCK_KEY)


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
