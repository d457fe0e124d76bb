"""How a command ends: the line that says why, and the exit code."""

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from exmem.errors import CorruptMetadataError, ExmemError, SchemaError, UnknownSlotError

__all__ = ["CODES", "DAMAGED", "FAILED", "WRONG", "split_debug", "told_errors"]

FAILED, WRONG, DAMAGED, FAULT, INTERRUPTED, UNREAD = 1, 2, 3, 70, 130, 141

CODES = {
    0: "done",
    FAILED: "cannot be done (data, memory, package or place; no room on the disk), or done but for what is named: "
    "broken images (data, caption, predict), cells that failed (tradeoff)",
    WRONG: "asked wrongly: an unknown command or option, a value or a configuration that cannot be",
    DAMAGED: "a memory is damaged (check), damage is left (repair), or its metadata are damaged (any command)",
    FAULT: "a fault of exmem, or of a part of your own; please report exmem's with the command, `exmem --version` "
    "and what --debug shows",
    INTERRUPTED: "interrupted with Ctrl-C; the same command goes on",
    UNREAD: "what reads the output went away, as `head` does",
}
"""Every exit code, and what it says."""

_BY_MACHINE = {errno.ENOSPC: "no room is left on the disk", errno.EDQUOT: "the quota of the disk is used up"}


def split_debug(words: Sequence[str]) -> tuple[list[str], bool]:
    """Return words without `--debug`, and whether it was there, or is asked for by EXMEM_DEBUG; `--` ends options."""
    end = words.index("--") if "--" in words else len(words)
    rest = [word for word in words[:end] if word != "--debug"] + [*words[end:]]
    return rest, len(rest) < len(words) or os.environ.get("EXMEM_DEBUG", "0") not in {"", "0"}


@contextlib.contextmanager
def told_errors(*, debug: bool) -> Iterator[None]:
    """End the process with a line and a code for whatever is raised; with `debug` the traceback comes before it."""
    try:
        yield
        sys.stdout.flush()  # a broken pipe or a full disk is to be noticed here
    except (Exception, KeyboardInterrupt) as error:
        line, code = _told(error)
        if debug:
            sys.stderr.write("".join(traceback.format_exception(error)))
        if line:
            sys.stderr.write(f"exmem: {line}\n")
        _drop_unwritten()
        raise SystemExit(code) from None


def _told(error: BaseException) -> tuple[str, int]:
    """Return what is said of an error, in one line, and the exit code."""
    said = " ".join(str(error).split())
    match error:
        case KeyboardInterrupt():
            return "interrupted; run the same command again to continue", INTERRUPTED
        case BrokenPipeError():
            return "", UNREAD
        case SchemaError() | UnknownSlotError():
            return said, WRONG
        case CorruptMetadataError():
            return said, DAMAGED
        case ExmemError():
            return said, FAILED
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] != "exmem":
            ours = "those of exmem come by pip install 'exmem[train,demo]'"
            return f"this needs the package {name}; install it ({ours})", FAILED
        case OSError(errno=number):
            what = _BY_MACHINE.get(number or 0, error.strerror or said or type(error).__name__)
            return (f"{error.filename}: {what}" if error.filename else what), FAILED
        case _ if any(kind.__name__ in {"MemoryError", "OutOfMemoryError"} for kind in type(error).__mro__):
            # torch.OutOfMemoryError, too, without importing torch
            return f"not enough memory{f': {said}' if said else ''}", FAILED
    what = f"{type(error).__name__}: {said}".removesuffix(": ")
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"a fault: {what} ({at.filename}, line {at.lineno}); run it with --debug for the traceback", FAULT


def _drop_unwritten() -> None:
    """Forget output that nobody takes, which Python would try to write once more when it ends, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
