"""The command `exmem`."""

import _thread
import io
import shutil
import sys
import textwrap
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TextIO

from exmem import __version__
from exmem.cli.commands import COMMANDS, load_command, summary
from exmem.cli.ending import CODES, WRONG, split_debug, told_errors
from exmem.errors import SchemaError

__all__ = ["COMMANDS", "main"]

_FOR_ALL = {
    "-h, --help": "what a command does, and its options",
    "--json": "one JSON object on stdout, once all is done; messages and bars go to stderr. An error is a line on "
    "stderr all the same, with its exit code, and stdout stays empty. Of every command but completion.",
    "--debug": "show the traceback of whatever ends a command, also by EXMEM_DEBUG=1; anywhere before or after it",
    "--version": "the version",
}
_WIDEST = 100  # columns of the help


def main() -> None:
    """Run the command line; `exmem --help` lists the exit codes. What ends it is one line, without a traceback."""
    words, debug = split_debug(sys.argv[1:])
    if words[:1] == ["--json"]:  # it may stand before the command
        words = [*words[1:], "--json"]
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell, `>&-`
            setattr(sys, name, io.StringIO())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the encoding lacks end no command
    warnings.showwarning = _warn
    before, sys.unraisablehook = sys.unraisablehook, _raise_again
    try:
        with told_errors(debug=debug):
            _run(words)
    finally:
        sys.unraisablehook = before


def _run(words: Sequence[str]) -> None:
    if words == ["--version"]:
        sys.stdout.write(f"exmem {__version__}\n")
        return
    if not words or words[0] in {"-h", "--help"}:
        sys.stdout.write(_help())
        sys.stdout.flush()
        raise SystemExit(0 if words else WRONG)
    if words[0] not in COMMANDS:
        raise SchemaError(f"unknown command {words[0]!r}; it is one of {', '.join(COMMANDS)}")
    from exmem.cli.words import read_words

    read_words(load_command(words[0]), words[1:])()


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupt once more, a moment later, where an interrupt came in a finaliser or callback and Python drops it."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of exmem as one line, others with their place."""
    place = "" if category.__module__.startswith("exmem.") else f"{filename}:{lineno}: {category.__name__}: "
    sys.stderr.write(f"exmem: warning: {place}{message}\n")


def _help() -> str:
    parts = [
        "usage: exmem COMMAND ...\n\nExemplar memory under a budget of bytes.",
        "commands:\n" + _listed({name: summary(name) for name in COMMANDS}),
        "options of all commands:\n" + _listed(_FOR_ALL),
        "exit codes:\n" + _listed({str(code): told for code, told in CODES.items()}),
        "`exmem COMMAND --help` explains each.",
    ]
    return "\n\n".join(parts) + "\n"


def _listed(told: Mapping[str, str]) -> str:
    """Write names with what is told of them, folded to the terminal."""
    width = max(map(len, told)) + 4
    columns = min(_WIDEST, max(40, shutil.get_terminal_size().columns))
    lines = []
    for name, text in told.items():
        first, *more = textwrap.wrap(text, columns - width, break_on_hyphens=False)
        lines += [f"  {name:<{width - 2}}{first}", *(" " * width + line for line in more)]
    return "\n".join(lines)
