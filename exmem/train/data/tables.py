"""Tables of text, CSV and JSON lines, as spreadsheets and scripts write them."""

import collections
import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exmem.errors import DataError
from exmem.train.data.labels import Number
from exmem.train.data.reading import Columns

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Inside", "Table", "read_lines", "read_table"]

_SEPARATORS = (",", ";", "\t")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclasses.dataclass(frozen=True)
class Inside:
    """An image that lies in the data: its row there, and what is wrong with it, as far as can be told."""

    row: int
    wrong: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a table with their numbers, lines that cannot be read, and what is wrong with the whole.

    `image` is the column of the images, if there is one; `images` holds those that lie in the table.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, Any]]]
    image: str | None = None
    images: "Dataset | None" = None
    broken: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    row_word: str = "line"
    separator: str = ","


def read_table(path: Path, columns: Columns) -> Table:
    """Read a CSV, TSV or JSONL file; a line that cannot be read is broken, bytes that are no text are an error.

    DataError if there is no column of images although they are needed.
    """
    text = _decoded(path)
    return _jsonl(path, text, columns) if path.suffix.lower() == ".jsonl" else _csv(path, text, columns)


def read_lines(path: Path, names: Sequence[str]) -> Table:
    """Read a CSV file with commas that has no line with the names of its columns; these are given."""
    table = Table(path, tuple(names), [])
    _read_cells(table, io.StringIO(_decoded(path), newline=""), ",", list(names), skips=0)
    return table


def _decoded(path: Path) -> str:
    remedy = 'save it in UTF-8 (in Excel: "CSV UTF-8"; elsewhere: iconv -f %s -t utf8)'
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it a readable file") from error
    if content.startswith(_UTF16):
        raise DataError(f"{path}: expected UTF-8, got UTF-16; {remedy % 'utf16'}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} line {line}: expected UTF-8, got the byte 0x{content[error.start]:02x}; {remedy % 'cp1252'}"
        ) from error


def _csv(path: Path, text: str, columns: Columns) -> Table:
    if not text.strip():
        raise DataError(f"{path}: expected a first line with the names of the columns, got an empty file; write it")
    separator, header = _header(path, text, columns)
    doubled = [name for name, count in collections.Counter(filter(None, header)).items() if count > 1]
    if doubled:
        raise DataError(f"{path}: the columns {doubled} are there twice; rename or drop one of each")
    names = tuple(filter(None, header))
    table = Table(path, names, [], columns.image_in(names), separator=separator)
    if separator != {".tsv": "\t"}.get(path.suffix.lower(), ","):
        table.notes.append(f"{path.name}: columns are separated by {separator!r}")
    _read_cells(table, io.StringIO(text, newline=""), separator, header, skips=1)
    return table


def _read_cells(table: Table, text: io.StringIO, separator: str, header: Sequence[str], *, skips: int) -> None:
    reader = csv.reader(text, delimiter=separator, strict=True)
    for _ in range(skips):
        next(reader)
    path, line, empty = table.path, reader.line_num + 1, 0
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                empty += 1
            elif any(cell.strip() for cell in cells[len(header) :]):
                table.broken.append(
                    f"{path} line {line}: expected {len(header)} cells, got {len(cells)}; put quotes around a text "
                    f"that contains {separator!r}"
                )
            else:
                whole = [*cells, *[""] * (len(header) - len(cells))]
                table.rows.append((line, {name: cell for name, cell in zip(header, whole, strict=False) if name}))
            line = reader.line_num + 1
    except csv.Error as error:
        table.problems.append(f'{path} line {line}: {error}; write a quote within quotes twice ("")')
    if empty:
        table.notes.append(f"{path.name}: {empty:,} empty rows are left out")


def _header(path: Path, text: str, columns: Columns) -> tuple[str, list[str]]:
    """Return the separator that gives most of the columns that are looked for, and the names of all columns."""
    headers: dict[str, list[str]] = {}
    for separator in _SEPARATORS:
        try:
            first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        except csv.Error:
            continue
        headers[separator] = [name.strip() for name in first]
    wanted = {*columns.images, columns.text, columns.label, columns.split}
    best = max(headers, key=lambda separator: len(wanted.intersection(headers[separator])), default=None)
    if best is None or (columns.needs_image and columns.image_in(headers[best]) is None):
        longest = max(headers.values(), key=len, default=[])
        raise DataError(
            f"{path}: expected a first line with the column {columns.images[0]!r}, got the columns {longest[:8]}; add "
            "it, with commas between the columns, or name yours with image_column (--data.image-column)"
        )
    return best, headers[best]


def _jsonl(path: Path, text: str, wanted: Columns) -> Table:
    rows: list[tuple[int, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    broken = []
    for line, written in enumerate(text.split("\n"), 1):
        if not written.strip():
            continue
        try:
            # NaN is what pandas writes where there is nothing.
            row = json.loads(written, parse_int=Number, parse_float=Number, parse_constant=_nothing)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            broken.append(f"{path} line {line}: expected one JSON object, got {reason}; write one object a line")
            continue
        if not isinstance(row, dict):
            kind = "a list" if isinstance(row, list) else repr(row)[:40]
            broken.append(f"{path} line {line}: expected one JSON object, got {kind}; write one object a line")
            continue
        if "\\u" in written and any(_is_torn(value) for value in row.values()):
            broken.append(f"{path} line {line}: expected texts, got half of a character (\\ud800); correct it")
            continue
        columns |= dict.fromkeys(row)
        rows.append((line, row))
    image = wanted.image_in(tuple(columns))
    if columns and image is None and wanted.needs_image:
        raise DataError(
            f"{path}: expected the column {wanted.images[0]!r}, got {list(columns)[:8]}; rename yours, or name it with "
            "image_column (--data.image-column)"
        )
    return Table(path, tuple(columns), rows, image, broken=broken)


def _nothing(_: str) -> None:
    return None


def _is_torn(value: Any) -> bool:
    """Tell whether a string holds half of a pair of surrogates, which JSON can write and UTF-8 cannot."""
    return isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)
