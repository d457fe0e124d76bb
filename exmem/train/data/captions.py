"""Texts of a folder of images, written into its metadata: what lacks one, what is written so far, and the whole."""

import contextlib
import csv
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from exmem.errors import DataError, LockedError
from exmem.train.data.files import ImageFiles
from exmem.train.data.layouts.places import TESTS
from exmem.train.data.reading import Columns, one_line
from exmem.train.data.tables import Table, read_table

__all__ = ["CaptionFolder", "folders_of"]

FILE_COLUMN = "file_name"
_SPLITS = ("train", *TESTS)
_METADATA = ("metadata.jsonl", "metadata.csv")
_SIDE = ".captions.jsonl"


def folders_of(root: Path) -> list[Path]:
    """Return the folders that get metadata: those of the splits, or the root itself where there are none."""
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of images, got {'a file' if root.exists() else 'nothing there'}")
    return [root / name for name in _SPLITS if (root / name).is_dir()] or [root]


class CaptionFolder:
    """A folder whose images get texts; those written so far lie in a hidden file beside them until all are there.

    `wanted` are the images that lack a text, `written` what was written of them, `broken` what is wrong with others.
    """

    def __init__(self, folder: Path, *, text_column: str, label_column: str, overwrite: bool) -> None:
        self.folder, self._text, self._label = folder, text_column, label_column
        self._files = ImageFiles(folder)
        self.written: dict[str, str] = {}
        self.broken: list[str] = []
        self.told: list[str] = []
        tables = [folder / name for name in _METADATA if (folder / name).exists()]
        if len(tables) > 1:
            raise DataError(f"{folder}: there are metadata.jsonl and metadata.csv; keep the one that is meant")
        columns = Columns(image=FILE_COLUMN, text=text_column, label=label_column)
        self._table = read_table(tables[0], columns) if tables else None
        self.metadata = tables[0] if tables else folder / _METADATA[0]
        self._named = self._names_of_rows(self._table) if self._table is not None else self._names_of_files()
        self.wanted = self._wanted(overwrite)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path, settings: Mapping[str, Any], **options: Any) -> "Iterator[CaptionFolder]":
        """Hold a folder for one process and go on with what was written by the same settings; LockedError, DataError.

        The hidden file stays until `publish`, whatever ends the process.
        """
        try:
            side = (folder / _SIDE).open("a+", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{folder}: cannot be written to ({error.strerror}); correct that") from error
        with side:
            try:
                fcntl.flock(side, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LockedError(f"{folder}: another process writes captions here; wait for it") from error
            except OSError:  # a file system without locks
                pass
            begun, captions = os.fstat(side.fileno()).st_size > 0, None
            try:
                captions = cls(folder, **options)
                captions._side = side
                captions._go_on(dict(settings))
                yield captions
            finally:
                if not begun and not (captions and captions.written):  # nothing is lost
                    (folder / _SIDE).unlink(missing_ok=True)

    _side: TextIO

    def _names_of_rows(self, table: Table) -> dict[int, str]:
        """Return the image of each row by its line."""
        if wrong := [*table.problems, *table.broken]:
            raise DataError(one_line(wrong, str(self.folder)))
        named = {}
        for line, row in table.rows:
            parts = self._files.parts(row.get(FILE_COLUMN))
            if parts is None:
                what = f"expected the name of a file in {self.folder}, got {row.get(FILE_COLUMN)!r}; correct it"
                self.broken.append(f"{table.path} line {line}: {what}")
            else:
                named[line] = "/".join(parts)
        rest = self._files.count_images(but={tuple(name.split("/")) for name in named.values()})
        if rest:
            self.told.append(f"{rest:,} images have no row in {table.path} and get no text")
        return named

    def _names_of_files(self) -> dict[int, str]:
        nested = [name for name in self._files.names if name[-1] in _METADATA]
        if nested:
            where = f"metadata belongs in {self.folder}, as {' or '.join(_METADATA)}; move it"
            raise DataError(f"{self._files.path(nested[0])}: {where}")
        images = [parts for parts in self._files.names if self._files.is_image(parts)]
        if not images:
            raise DataError(f"{self.folder}: expected images, found none; give a folder that holds some")
        return dict(enumerate(map("/".join, images)))

    def _wanted(self, overwrite: bool) -> list[str]:
        rows = {} if self._table is None else dict(self._table.rows)
        lacking = [
            name for line, name in self._named.items() if overwrite or not _is_text(rows.get(line, {}).get(self._text))
        ]
        wanted = []
        for name in dict.fromkeys(lacking):
            wrong = self._files.wrong(tuple(name.split("/")))
            if wrong is None:
                wanted.append(name)
            else:
                self.broken.append(f"{self._files.path((name,))}: {wrong}")
        return wanted

    def path(self, name: str) -> Path:
        """Return where an image lies."""
        return self.folder / name

    def _go_on(self, settings: dict[str, Any]) -> None:
        """Read what was written before, and begin the file where there is none."""
        self._side.seek(0)
        text = self._side.read()
        whole = text[: text.rfind("\n") + 1]
        self._side.truncate(len(whole.encode()))  # a line that a kill cut short
        try:
            first, *lines = map(json.loads, whole.splitlines()) if whole else [settings]
            self.written = {line[FILE_COLUMN]: line["text"] for line in lines}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.folder / _SIDE}: expected captions, got {error}; remove it to begin anew"
            ) from error
        if first != settings:
            raise DataError(
                f"{self.folder / _SIDE}: captions were begun here with {first}, not {settings}; go on with those, or "
                "remove the file to begin anew"
            )
        if not whole:
            self._append([settings])

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._side.write("".join(json.dumps(line) + "\n" for line in lines))
        self._side.flush()
        os.fsync(self._side.fileno())

    def batches(self, size: int) -> Iterator[list[str]]:
        """Yield the images that still lack a text; the same ones together, whatever was written before."""
        for start in range(0, len(self.wanted), size):
            lacking = [name for name in self.wanted[start : start + size] if name not in self.written]
            if lacking:
                yield lacking

    def note(self, captions: Mapping[str, str]) -> None:
        """Keep the texts of some images, on the disk before this returns."""
        self._append([{FILE_COLUMN: name, "text": text} for name, text in captions.items()])
        self.written |= captions

    def publish(self) -> None:
        """Put the metadata in place, whole or not at all, and drop the hidden file; nothing is written for nothing."""
        texts = {name: self.written[name] for name in self.wanted if name in self.written}
        place = Path(os.path.realpath(self.metadata))  # through a link
        if texts:
            content = self._of_files(texts) if self._table is None else self._of_table(self._table, texts)
            temporary = place.with_name(f".{place.name}.tmp")
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if place.exists():
                    shutil.copymode(place, temporary)
                temporary.replace(place)
                _sync(place.parent)
            except OSError as error:
                raise DataError(f"{place}: cannot be written ({error.strerror}); the captions are kept") from error
        (self.folder / _SIDE).unlink(missing_ok=True)

    def _of_files(self, texts: Mapping[str, str]) -> bytes:
        """Return rows of all images, those without a text too; an image in a folder is of the class of that name."""
        rows = []
        for name in filter(_is_utf8, self._named.values()):
            label = {self._label: name.partition("/")[0]} if "/" in name else {}
            rows.append({FILE_COLUMN: name, self._text: texts.get(name, ""), **label})
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()

    def _of_table(self, table: Table, texts: Mapping[str, str]) -> bytes:
        rows = dict(table.rows)
        cells = {}
        for line in rows:
            name = self._named.get(line, "")
            if name in texts:
                cells[line] = texts[name]
            elif rows[line].get(self._text) is None:
                cells[line] = ""
        content = table.path.read_bytes().decode("utf-8")
        mark, text = ("\ufeff", content[1:]) if content.startswith("\ufeff") else ("", content)
        rewritten = _csv if table.path.suffix == ".csv" else _jsonl
        return (mark + rewritten(text, cells, self._text, table)).encode()


def _is_utf8(name: str) -> bool:
    return name.encode(errors="ignore").decode() == name


def _is_text(cell: Any) -> bool:
    return cell is not None and bool(str(cell).strip())


def _jsonl(text: str, cells: Mapping[int, str], column: str, table: Table) -> str:
    """Return the lines of a table with other texts; those that keep theirs stay as they are to the byte."""
    lines = text.split("\n")
    for line, cell in cells.items():
        written = lines[line - 1]
        row = json.loads(written) | {column: cell}
        lines[line - 1] = json.dumps(row, ensure_ascii=False) + ("\r" if written.endswith("\r") else "")
    return "\n".join(lines)


def _csv(text: str, cells: Mapping[int, str], column: str, table: Table) -> str:
    """Return a table with other texts, its separator and ends of lines as they were."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=table.separator, strict=True)
    header = next(reader)
    names = [name.strip() for name in header]
    at = names.index(column) if column in names else len(names)
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=table.separator, lineterminator="\r\n" if "\r\n" in text else "\n")
    writer.writerow(header if at < len(names) else [*header, column])
    line = reader.line_num + 1
    for row in reader:
        if line in cells:
            padded = [*row, *[""] * (max(len(names), at + 1) - len(row))]
            padded[at] = cells[line]
            row = padded
        writer.writerow(row)
        line = reader.line_num + 1
    return out.getvalue()


def _sync(folder: Path) -> None:
    """Have the name of a new file on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
