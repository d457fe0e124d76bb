"""What commands print: whole lines or JSON where a program reads, lines and tables that fit where a person does."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from typing_extensions import override

from exmem.errors import DataError

__all__ = ["check_folder", "has_colours", "make_console", "make_progress", "print_table", "write_json"]

_ENDLESS = 100_000  # columns of what is no terminal: nothing is wrapped
_NAME = 12  # columns that a name keeps before numbers are left out beside it


class _Console(Console):
    @override
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # one place says how a command ends


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that wraps nothing unless at a terminal, and prints names as they are.

    It is for stdout, or for stderr: a command that answers in JSON has all else on stderr.
    """
    stream = sys.stderr if stderr else sys.stdout
    options: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    if not stream.isatty():  # FORCE_COLOR asks for colours, not for bars
        options |= {"width": _ENDLESS, "height": 25, "force_interactive": False}
    if not has_colours(stream):
        options["color_system"] = None
    return _Console(stderr=stderr, **options)


def has_colours(stream: TextIO) -> bool:
    """Whether colours may be written: at a terminal that can, or where FORCE_COLOR is set, and never with NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    can = stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
    return can or bool(os.environ.get("FORCE_COLOR"))


def write_json(document: Mapping[str, Any]) -> None:
    """Write the answer of a command as one JSON object; a number that is none (NaN, an infinity) is null."""
    sys.stdout.write(dumps(_valid(document), indent=2, allow_nan=False, default=os.fspath) + "\n")


def _valid(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _valid(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_valid, value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_folder(out: Path) -> None:
    """Refuse a place where no folder can be made, before minutes of work."""
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not place.is_dir():
        raise DataError(f"{place} is a file; choose a folder with --out")
    if not os.access(place, os.W_OK):
        raise DataError(f"{place} cannot be written to; choose another folder with --out")


def make_progress(console: Console) -> Progress:
    """Return a progress bar that leaves nothing behind, and prints nothing at all but at a terminal that can."""
    return Progress(console=console, transient=True, disable=not console.is_interactive)


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print names with their numbers; long names are folded, numbers that do not fit are left out and named below."""
    cells = [max([cell_len(row[at]) for row in rows], default=0) for at in range(len(columns))]
    cells[0] = min(cells[0], _NAME)
    headers = list(columns)
    if _width(headers, cells) > console.width:
        headers = [name.replace(" ", "\n") for name in columns]
    shown = len(columns)
    while shown > 1 and _width(headers[:shown], cells) > console.width:
        shown -= 1
    table = Table()
    table.add_column(headers[0], overflow="fold")
    for header in headers[1:shown]:
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row[:shown])
    console.print(table)
    if shown < len(columns):
        left_out = ", ".join(columns[shown:])
        console.print(f"Left out, for want of columns: {left_out}; a wider terminal or --json shows all.")


def _width(headers: Sequence[str], cells: Sequence[int]) -> int:
    columns = [max(cell, *map(cell_len, header.split("\n"))) for header, cell in zip(headers, cells, strict=False)]
    return sum(columns) + 3 * len(columns) + 1  # borders, and a blank at each side
