"""What a folder of data holds, with everything that is wrong or odd in it; no image is decoded."""

import collections
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from exmem.errors import DataError
from exmem.train.data.files import ImageFiles
from exmem.train.data.labels import alike, class_name, natural
from exmem.train.data.tables import FILE_COLUMN, Number, Table, read_table

__all__ = ["Columns", "Example", "Reading", "Split", "one_line", "read_folder"]

_TESTS = ("test", "validation", "valid", "val")
_METADATA = ("metadata.jsonl", "metadata.csv")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of the columns; None for a text that is not wanted. `needs_text` None: where there is such a column."""

    text: str | None = "text"
    label: str = "label"
    needs_text: bool | None = True


@dataclasses.dataclass(frozen=True, order=True)
class Example:
    """The parts of an image's path below the folder of the data, its text and the name of its class."""

    parts: tuple[str, ...]
    text: str
    label: str

    @property
    def name(self) -> str:
        """Parts with slashes."""
        return "/".join(self.parts)


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of a split in order of their names; what is broken, what may be a mistake, what is merely told."""

    folder: Path
    examples: list[Example] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    has_texts: bool = False


@dataclasses.dataclass(frozen=True)
class Reading:
    """Both splits of a folder, and the classes of the first in order."""

    root: Path
    train: Split
    test: Split
    class_names: tuple[str, ...]
    problems: list[str]
    warnings: list[str]
    notes: list[str]


def read_folder(folder: str | os.PathLike[str], columns: Columns) -> Reading:
    """Read the metadata of a folder; DataError only where there is nothing to read."""
    root = Path(folder).expanduser().absolute()
    train, test = (_read_split(root, name, columns) for name in _split_names(root))
    warnings = [f"{split.folder}: {line}" for split in (train, test) for line in split.warnings]
    if test.folder.name != "test":
        warnings.append(f"{root}: there is no test/, {test.folder.name}/ is taken for it")
    names = {example.label for example in train.examples}
    unknown = sorted({example.label for example in test.examples} - names, key=natural)
    problems = [*train.problems, *test.problems]
    if unknown and not train.problems:  # a broken row may be the one that has the class
        problems.append(f"{test.folder} has the classes {unknown[:5]}, which {train.folder} lacks; add or drop them")
    warnings += [f"{root}: {line}" for line in alike([*names, *unknown])]
    notes = [f"{split.folder}: {line}" for split in (train, test) for line in split.notes]
    return Reading(root, train, test, tuple(sorted(names, key=natural)), problems, warnings, notes)


def one_line(problems: list[str], root: Path) -> str:
    """Name the first of several problems, and how to see the others."""
    more = len(problems) - 1
    return problems[0] + (f" (and {more:,} more: `exmem data {root}` lists them)" if more else "")


def _split_names(root: Path) -> tuple[str, str]:
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing there"
        raise DataError(f"{root}: expected a folder with train/ and test/, got {what}; give the folder of the data")
    tests = [name for name in _TESTS if (root / name).is_dir()]
    if not (root / "train").is_dir() or not tests:
        raise DataError(
            f"{root}: expected the folders train/ and test/ (or validation/), got {_listing(root)}; "
            "divide the images between them"
        )
    if "test" not in tests and len(tests) > 1:
        raise DataError(f"{root}: expected one folder for the test, got {tests}; name the one that is meant test")
    return "train", tests[0]


def _read_split(root: Path, name: str, columns: Columns) -> Split:
    folder = root / name
    metadata = [folder / file for file in _METADATA if (folder / file).exists()]
    place = metadata[0] if metadata else folder
    split = Split(folder)
    if len(metadata) > 1:
        split.problems.append(f"{folder}: there are metadata.jsonl and metadata.csv; keep the one that is meant")
    elif metadata:
        split = _read_rows(ImageFiles(folder), read_table(place), columns)
    elif columns.needs_text:
        split.problems.append(
            f"{folder}: expected a metadata.jsonl or metadata.csv with the columns {FILE_COLUMN!r}, {columns.text!r} "
            f"and {columns.label!r}, got {_listing(folder)}; write it (where no texts are needed, a folder for each "
            "class will do)"
        )
    else:
        _read_class_folders(ImageFiles(folder), split)
    split.examples.sort()
    if not split.examples and not split.problems:
        split.problems.append(f"{place}: expected at least one example, got none; add it")
    return split


def _read_rows(files: ImageFiles, table: Table, columns: Columns) -> Split:
    has_texts = columns.text is not None and columns.text in table.columns
    split = Split(files.folder, problems=table.problems, notes=table.notes, has_texts=has_texts)
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
    named = set()
    for line, row in table.rows:
        parts = files.parts(row.get(FILE_COLUMN))
        if parts is None:
            what = f"expected the name of a file in {files.folder}, got {_shown(row.get(FILE_COLUMN))}"
            split.problems.append(f"{table.path} line {line}: {what}; correct {FILE_COLUMN!r} or drop the row")
            continue
        named.add(parts)
        example = _read_row(files, parts, row, columns)
        if isinstance(example, Example):
            split.examples.append(example)
        else:
            split.problems.append(f"{files.path(parts)} ({table.path.name} line {line}): {example}")
    rows = [row for _, row in table.rows]
    labels = [row.get(columns.label) for row in rows]
    shortened = sum(class_name(label) not in {None, str(label)} for label in labels)
    rest = files.count_images(but=named)
    for count, what in (
        (shortened, f"labels of {table.path.name} are written as 1.0 and taken as 1"),
        (rest, f"images have no row in {table.path.name} and are left out"),
    ):
        split.warnings.extend([f"{count:,} {what}"] if count else [])
    doubled = len(split.examples) - len({example.parts for example in split.examples})
    numbers = sum(isinstance(row.get(columns.text), Number) for row in rows) if columns.text else 0
    for count, what in ((doubled, "rows name an image that another row names"), (numbers, "texts are numbers")):
        split.notes.extend([f"{table.path.name}: {count:,} {what}"] if count else [])
    return split


def _read_row(files: ImageFiles, parts: tuple[str, ...], row: Mapping[str, Any], columns: Columns) -> Example | str:
    """Return the example of a row, or what is wrong with it."""
    wrong = files.wrong(parts)
    if wrong is not None:
        return wrong
    text = "" if columns.text is None else row.get(columns.text)
    if not isinstance(text, str) and columns.needs_text is not False:
        return f"expected a text, got {_shown(text)}; write an empty string where there is none"
    label = class_name(row.get(columns.label))
    if label is None:
        return f"expected a label, got {_shown(row.get(columns.label))}; fill it in or drop the row"
    return Example((files.folder.name, *parts), str(text) if isinstance(text, str) else "", label)


def _read_class_folders(files: ImageFiles, split: Split) -> None:
    others: collections.Counter[str] = collections.Counter()
    loose = []
    for parts in files.names:
        if parts[-1].startswith("metadata."):
            where = f"metadata belongs in {files.folder}, as {' or '.join(_METADATA)}"
            split.problems.append(f"{files.path(parts)}: {where}; move it")
        elif not files.is_image(parts):
            others[PurePosixPath(parts[-1]).suffix.lower() or "no suffix"] += 1
        elif len(parts) == 1:
            loose.append(files.path(parts))
        else:
            wrong = files.wrong(parts)
            if wrong is None:
                split.examples.append(Example((files.folder.name, *parts), "", parts[0]))
            else:
                split.problems.append(f"{files.path(parts)}: {wrong}")
    if not split.examples and not split.problems:
        split.problems.append(
            f"{split.folder}: expected a metadata.jsonl or metadata.csv, or a folder of images for each class, got "
            f"{_listing(split.folder)}; write one of them"
        )
    else:
        split.problems.extend(f"{place}: lies in no folder of a class; move it into one" for place in loose)
    if others:
        kinds = ", ".join(f"{count:,} of {suffix}" for suffix, count in others.most_common(5))
        split.warnings.append(f"{sum(others.values()):,} files are no images and are left out ({kinds})")


def _shown(cell: Any) -> str:
    return "nothing" if cell is None or (isinstance(cell, str) and not cell.strip()) else repr(cell)[:60]


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "an empty folder"
