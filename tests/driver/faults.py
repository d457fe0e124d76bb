"""Faults at any operation of the file system, or at any line of the library: raised, or the process dies there."""

import contextlib
import dataclasses
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from unittest import mock

import exmem
from tests.exemplars import folder_bytes

KILLED = 77  # exit status of a process that died at a fault
MODULES = str(Path(exmem.__file__).parent)

Kind = Literal["EIO", "ENOSPC", "KeyboardInterrupt", "MemoryError", "kill"]
When = Literal["before", "middle", "after"]
KINDS: tuple[Kind, ...] = ("EIO", "ENOSPC", "KeyboardInterrupt", "MemoryError", "kill")
WHENS: tuple[When, ...] = ("before", "middle", "after")

_RENAMES = ("replace", "rename", "link")
_DELETIONS = ("unlink", "remove", "rmdir")
_WRITES = ("write", "pwrite", "ftruncate", "link")  # after these the files may have more bytes
_CHANGES = (*_RENAMES, *_DELETIONS, *_WRITES[:3], "mkdir", "fsync", "fdatasync")


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong at operation number `at`.

    `lasting`: every later operation that puts something fails too, as on a full disk or a broken one.
    """

    kind: Kind
    at: int
    when: When = "before"
    lasting: bool = False

    def error(self) -> BaseException:
        if self.kind in {"EIO", "ENOSPC"}:
            number = getattr(errno, self.kind)
            return OSError(number, os.strerror(number))
        return {"KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError}[self.kind]()


class Watched:
    """Counts the operations that change files, looks after each of them, and lets one of them fail.

    The functions of `os` are replaced while `with` lasts; `look` is called after each that may have added bytes, also
    when it was the last thing that the process did.
    """

    def __init__(self, fault: Fault | None = None, look: Callable[[str], None] = lambda name: None) -> None:
        self.count, self.hit, self.trail = 0, False, []
        self._fault, self._look, self._patches, self._within = fault, look, contextlib.ExitStack(), False

    def __enter__(self) -> "Watched":
        for name in _CHANGES:
            self._patches.enter_context(mock.patch.object(os, name, self._wrap(name, getattr(os, name))))
        self._patches.enter_context(mock.patch.object(os, "open", self._wrap("open", os.open, _opens_to_write)))
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def _wrap(self, name: str, real: Callable[..., Any], counts: Callable[..., bool] = lambda *_: True) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            if self._within or not counts(*args):
                return real(*args, **options)
            self.trail.append(f"{name} {args[0] if args else ''}")
            number = self.count
            self.count += 1
            if self._fails_here(number, "before", name):
                self._fail()
            if self._fails_here(number, "middle", name):
                self._half(name, real, args)
                self._fail()
            result = real(*args, **options)
            if name in _WRITES:
                self.look(name)
            if self._fails_here(number, "after", name):
                if name == "open":
                    os.close(result)  # a descriptor that its caller never gets
                self._fail()
            return result

        return wrapped

    def look(self, name: str) -> None:
        self._within = True
        try:
            self._look(name)
        finally:
            self._within = False

    def _fails_here(self, number: int, when: When, name: str) -> bool:
        fault = self._fault
        if fault is None or fault.when != when:
            return False
        if number == fault.at:
            return True
        frees = fault.kind == "ENOSPC" and name in _DELETIONS
        return fault.lasting and number > fault.at and not frees

    def _fail(self) -> None:
        self.hit = True
        assert self._fault is not None
        if self._fault.kind == "kill":
            os._exit(KILLED)
        raise self._fault.error()

    def _half(self, name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Do half of it: half the bytes are written, or the temporary file has only half of its bytes."""
        if name in {"write", "pwrite"}:
            data = memoryview(args[1]).cast("B")
            real(args[0], data[: len(data) // 2], *args[2:])
        elif name in _RENAMES:
            os.truncate(args[0], Path(args[0]).stat().st_size // 2)
        self.look(name)


def _opens_to_write(path: object, flags: int, *_: object) -> bool:
    return bool(flags & (os.O_CREAT | os.O_TRUNC))


def within_limit(folder: Path, limit: Callable[[], int]) -> Callable[[str], None]:
    """Make a look that says when the files of a folder, temporary ones too, have more bytes than they may."""

    def look(name: str) -> None:
        found, allowed = folder_bytes(folder), limit()
        if found > allowed:
            raise OverBudget(f"{found:,} bytes after {name}, {allowed:,} are allowed")

    return look


class OverBudget(BaseException):
    """The files took more than they may; no handler of the library may hide it."""


@contextlib.contextmanager
def at_line(number: int, error: Callable[[], BaseException] = KeyboardInterrupt) -> Iterator[dict[str, bool]]:
    """Raise an error when the library comes to its line number `number`, counted from here."""
    told, left = {"hit": False}, number

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(MODULES):
            return None
        if event == "line":
            left -= 1
            if left < 0 and not told["hit"]:
                told["hit"] = True
                sys.settrace(None)
                told["where"] = f"{frame.f_code.co_filename[len(MODULES) + 1 :]}:{frame.f_lineno}"
                raise error()
        return None if told["hit"] else trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield told
    finally:
        sys.settrace(before)


def in_a_child(act: Callable[[], None]) -> int:
    """Do something in a forked process; return its exit status: 0, `KILLED`, or 1 when it raised (it tells why)."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
