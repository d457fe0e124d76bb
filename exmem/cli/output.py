"""What commands print: whole lines where a program reads them, lines and tables that fit where a person does."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from exmem.errors import DataError

__all__ = ["check_folder", "make_console", "make_progress", "print_table"]

_ENDLESS = 100_000  # columns of what is no terminal: nothing is wrapped
_NAME = 12  # columns that a name keeps before numbers are left out beside it


def make_console() -> Console:
    """Return a console for stdout that wraps nothing unless stdout is a terminal, and prints names as they are."""
    if sys.stdout.isatty():
        return Console(markup=False, emoji=False, highlight=False)
    return Console(markup=False, emoji=False, highlight=False, width=_ENDLESS, height=25)


def check_folder(out: Path) -> None:
    """Refuse a place where no folder can be made, before minutes of work."""
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not place.is_dir():
        raise DataError(f"{place} is a file; choose a folder with --out")
    if not os.access(place, os.W_OK):
        raise DataError(f"{place} cannot be written to; choose another folder with --out")


def make_progress(console: Console) -> Progress:
    """Return a progress bar that leaves nothing behind, and prints nothing at all where stdout is no terminal."""
    return Progress(console=console, transient=True, disable=not sys.stdout.isatty())


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
