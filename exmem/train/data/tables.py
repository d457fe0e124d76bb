"""Tables of metadata, `metadata.csv` and `metadata.jsonl`, as spreadsheets and scripts write them."""

import collections
import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

from exmem.errors import DataError

__all__ = ["FILE_COLUMN", "Number", "Table", "read_table"]

FILE_COLUMN = "file_name"
_SEPARATORS = (",", ";", "\t")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Number(str):
    """A number of JSON as it is written there, so that no digit is lost or invented."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a metadata file with their line numbers, and the lines that cannot be read."""

    path: Path
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, Any]]]
    problems: list[str]
    notes: list[str]


def read_table(path: Path) -> Table:
    """Read a metadata file; a line that cannot be read is a problem of the table, bytes that are no text an error."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it a readable file") from error
    text = _decoded(path, content)
    return _csv(path, text) if path.suffix == ".csv" else _jsonl(path, text)


def _decoded(path: Path, content: bytes) -> str:
    remedy = 'save it in UTF-8 (in Excel: "CSV UTF-8"; elsewhere: iconv -f %s -t utf8)'
    if content.startswith(_UTF16):
        raise DataError(f"{path}: expected UTF-8, got UTF-16; {remedy % 'utf16'}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} line {line}: expected UTF-8, got the byte 0x{content[error.start]:02x}; {remedy % 'latin1'}"
        ) from error


def _csv(path: Path, text: str) -> Table:
    if not text.strip():
        raise DataError(f"{path}: expected a first line with the names of the columns, got an empty file; write it")
    separator, header = _header(path, text)
    doubled = [name for name, count in collections.Counter(filter(None, header)).items() if count > 1]
    if doubled:
        raise DataError(f"{path}: the columns {doubled} are there twice; rename or drop one of each")
    table = Table(path, tuple(filter(None, header)), [], [], [])
    if separator != ",":
        table.notes.append(f"{path.name}: columns are separated by {separator!r}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    next(reader)
    line, empty = reader.line_num + 1, 0
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                empty += 1
            elif any(cell.strip() for cell in cells[len(header) :]):
                table.problems.append(
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
    return table


def _header(path: Path, text: str) -> tuple[str, list[str]]:
    headers = {}
    for separator in _SEPARATORS:
        try:
            first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        except csv.Error:
            continue
        headers[separator] = [name.strip() for name in first]
        if FILE_COLUMN in headers[separator]:
            return separator, headers[separator]
    longest = max(headers.values(), key=len, default=[])
    raise DataError(
        f"{path}: expected a first line with the column {FILE_COLUMN!r}, got the columns {longest[:8]}; add it, "
        "with commas between the columns"
    )


def _jsonl(path: Path, text: str) -> Table:
    rows: list[tuple[int, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    problems = []
    for line, written in enumerate(text.split("\n"), 1):
        if not written.strip():
            continue
        try:
            # NaN is what pandas writes where there is nothing.
            row = json.loads(written, parse_int=Number, parse_float=Number, parse_constant=_nothing)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            problems.append(f"{path} line {line}: expected one JSON object, got {reason}; write one object a line")
            continue
        if not isinstance(row, dict):
            kind = "a list" if isinstance(row, list) else repr(row)[:40]
            problems.append(f"{path} line {line}: expected one JSON object, got {kind}; write one object a line")
            continue
        if "\\u" in written and any(_is_torn(value) for value in row.values()):
            problems.append(f"{path} line {line}: expected texts, got half of a character (\\ud800); correct it")
            continue
        columns |= dict.fromkeys(row)
        rows.append((line, row))
    if columns and FILE_COLUMN not in columns:
        raise DataError(f"{path}: expected the column {FILE_COLUMN!r}, got {list(columns)[:8]}; rename yours")
    return Table(path, tuple(columns), rows, problems, [])


def _nothing(_: str) -> None:
    return None


def _is_torn(value: Any) -> bool:
    """Tell whether a string holds half of a pair of surrogates, which JSON can write and UTF-8 cannot."""
    return isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)
