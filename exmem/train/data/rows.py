"""Rows of a table as examples of a split."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exmem.train.data.files import ImageFiles
from exmem.train.data.labels import Number, class_name
from exmem.train.data.reading import Columns, Example, Split
from exmem.train.data.tables import Inside, Table

__all__ = ["read_rows", "tell_images_without_row"]


def read_rows(table: Table, columns: Columns, files: ImageFiles, *, place: str, prefix: tuple[str, ...]) -> Split:
    """Read the rows of a table whose images are named by where they lie below a folder, or lie in the table.

    Names of examples begin with `prefix`. Rows with files come in order of their names, others as they are.
    """
    has_texts = columns.text is not None and columns.text in table.columns
    split = Split(
        place,
        problems=table.problems,
        broken=table.broken,
        notes=table.notes,
        has_texts=has_texts,
        has_images=table.image is not None,
        table=table.images,
    )
    wanted = [columns.text] if columns.needs_text and columns.text is not None else []
    missing = [name for name in (*wanted, columns.label) if name not in table.columns]
    if missing and table.rows:
        split.problems.append(
            f"{table.path}: lacks the columns {missing}, it has {sorted(table.columns)}; "
            "name yours with text_column and label_column (of `exmem train` --data.text-column and --data.label-column)"
        )
        return split
    if not has_texts:
        columns = dataclasses.replace(columns, text=None)
    for number, row in table.rows:
        example = _read_row(table, number, row, columns, files, prefix)
        if isinstance(example, Example):
            split.examples.append(example)
        else:
            split.broken.append(example)
    if table.images is None and table.image is not None:
        split.examples.sort()
    _tell(split, table, columns)
    return split


def tell_images_without_row(split: Split, named: set[tuple[str, ...]], files: ImageFiles, tables: str) -> None:
    """Warn of images below a folder that no row names."""
    if rest := files.count_images(but=named):
        split.warnings.append(f"{rest:,} images have no row in {tables} and are left out")


def _read_row(
    table: Table, number: int, row: Mapping[str, Any], columns: Columns, files: ImageFiles, prefix: tuple[str, ...]
) -> Example | str:
    """Return the example of a row, or what is wrong with it and where."""
    where = f"{table.path} {table.row_word} {number}"
    cell = None if table.image is None else row.get(table.image)
    optional = table.image is None or columns.needs_image is False
    image: Path | int | None = None
    parts: tuple[str, ...] = (f"{number:09d}",)  # where no file gives a name
    if isinstance(cell, Inside):
        image = cell.row
        if cell.wrong is not None and not optional:
            return f"{where}: {cell.wrong}"
    elif (named := None if table.image is None else files.parts(cell)) is not None:
        parts, wrong = named, files.wrong(named)
        where = f"{files.path(parts)} ({table.path.name} {table.row_word} {number})"
        if wrong is None:
            image = files.folder.joinpath(*parts)
        elif not optional:
            return f"{where}: {wrong}"
    elif not optional:
        what = f"expected the name of a file in {files.folder}, got {_shown(cell)}"
        return f"{where}: {what}; correct {table.image!r} or drop the row"
    described = _described(row, columns)
    return f"{where}: {described}" if isinstance(described, str) else Example((*prefix, *parts), *described, image)


def _described(row: Mapping[str, Any], columns: Columns) -> tuple[str, str] | str:
    """Return text and class of a row, or what is wrong with them."""
    text = "" if columns.text is None else row.get(columns.text)
    if not isinstance(text, str) and columns.needs_text is not False:
        return f"expected a text, got {_shown(text)}; write an empty string where there is none"
    label = class_name(row.get(columns.label))
    if label is None:
        return f"expected a label, got {_shown(row.get(columns.label))}; fill it in or drop the row"
    return str(text) if isinstance(text, str) else "", label


def _tell(split: Split, table: Table, columns: Columns) -> None:
    rows = [row for _, row in table.rows]
    labels = [row.get(columns.label) for row in rows]
    shortened = sum(class_name(label) not in {None, str(label)} for label in labels)
    if shortened:
        split.warnings.append(f"{shortened:,} labels of {table.path.name} are written as 1.0 and taken as 1")
    numbers = sum(isinstance(row.get(columns.text), Number) for row in rows) if columns.text else 0
    if table.image is None:
        doubled = len(split.examples) - len({(example.text, example.label) for example in split.examples})
        what = "rows have text and label of another row"
    else:
        doubled = len(split.examples) - len({example.parts for example in split.examples})
        what = "rows name an image that another row names"
    for count, line in ((doubled, what), (numbers, "texts are numbers")):
        split.notes.extend([f"{table.path.name}: {count:,} {line}"] if count else [])


def _shown(cell: Any) -> str:
    return "nothing" if cell is None or (isinstance(cell, str) and not cell.strip()) else repr(cell)[:60]
