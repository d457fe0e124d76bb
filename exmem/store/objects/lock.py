"""What the lock object says: nothing, or the process, host and start time of the one writer."""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "FREE",
    "LOCK_BYTES",
    "LOCK_KEY",
    "Holder",
    "is_free",
    "lock_document",
    "parse_holder",
    "this_process",
    "who",
]

LOCK_KEY = "lock/zarr.json"  # a Zarr group of its own: some stores take nothing else
LOCK_BYTES = 256  # always, so that taking the lock never needs room

_MOST_HOST = 64  # HOST_NAME_MAX of Linux


class Holder(NamedTuple):
    """A writer; `token` tells writers of one process apart."""

    pid: int
    host: str
    process_start: str
    since: str
    token: str

    @property
    def lives(self) -> bool | None:
        """Whether the process is there, None when it is on another host."""
        return _process_start(self.pid) == self.process_start if self.host == _host() else None


def this_process(token: str) -> Holder:
    """Return this process as a holder."""
    pid = os.getpid()
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Holder(pid, _host(), _process_start(pid) or "unknown", since, token)


def lock_document(holder: Holder | None) -> bytes:
    """Return the lock object that names a holder, or nobody: always LOCK_BYTES long."""
    described = {} if holder is None else holder._asdict()
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"exmem": described}}
    return json.dumps(document, separators=(",", ":")).encode().ljust(LOCK_BYTES)


FREE = lock_document(None)


def is_free(data: bytes) -> bool:
    """Return whether a lock object says that nobody holds it."""
    return data == FREE


def parse_holder(data: bytes | None) -> Holder | None:
    """Return the holder that a lock object names, None when it names none or cannot be read."""
    try:
        described = json.loads(data or b"")["attributes"]["exmem"]
        texts = [str(described[name]) for name in ("host", "process_start", "since", "token")]
        return Holder(int(described["pid"]), *texts)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def who(holder: Holder | None) -> str:
    """Return a holder for people."""
    if holder is None:
        return "a writer that cannot be read"
    return f"process {holder.pid} on {holder.host} since {holder.since}"


def _host() -> str:
    return socket.gethostname().encode("ascii", "replace").decode().replace('"', "?").replace("\\", "?")[:_MOST_HOST]


def _process_start(pid: int) -> str | None:
    """Return when a process started (so that a reused pid is not taken for the holder), None when it is gone."""
    if pid <= 0:
        return None
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        # proc(5): state, and field 22: start time in ticks since boot. A zombie writes nothing any more.
        return None if status[0] in {"Z", "X"} else status[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return "unknown"
