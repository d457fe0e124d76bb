"""Tables with columns for image, text and label.

    train.csv   (or .tsv, .jsonl, .parquet; train-00000-of-00002.parquet and so on, also in data/)
    test.csv    the same (or validation, valid, val)

or one table whose column `split` says which rows are for training and which for the test. Images are named by where
they lie below the table's folder, or lie in a Parquet table, as Hugging Face writes it; without them texts alone
are learnt.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from exmem.errors import DataError
from exmem.train.data.arrow import read_parquet
from exmem.train.data.files import ImageFiles
from exmem.train.data.layouts.places import SPLITS, TESTS, Place
from exmem.train.data.reading import Columns, Reading, Split, joined, listing
from exmem.train.data.rows import read_rows, tell_images_without_row
from exmem.train.data.tables import Table, read_table

__all__ = ["SUFFIXES", "read_tables", "read_whole", "split_tables", "splits_of", "whole_of"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def read_tables(place: Place, columns: Columns) -> Reading:
    """Read the tables of a folder, or one table with a column that names splits."""
    if place.path.is_file():
        return splits_of(_read_file(place, columns), columns, ImageFiles(place.path.parent), root=str(place))
    root = place.folder("a folder with train.csv and test.csv, or a table")
    tables = split_tables(root)
    test = next((name for name in TESTS if name in tables), None)
    if "train" not in tables or test is None:
        raise DataError(
            f"{root}: expected the tables train and test (or validation), as {', '.join(SUFFIXES)}, got "
            f"{listing(root)}; write them, or give one table with a column {columns.split!r}"
        )
    splits, all_named, files = [], set[tuple[str, ...]](), ImageFiles(root)
    for name in ("train", test):
        table = _read(tables[name], columns)
        below = files if table.path.parent == root else ImageFiles(table.path.parent)
        splits.append(read_rows(table, columns, below, place=str(table.path), prefix=(name,)))
        all_named |= _named(table, below)
    _tell_rest(splits[0], all_named, files, "the tables")
    warned = [] if test == "test" else [f"{root}: there is no table test, {test} is taken for it"]
    return joined(str(root), *splits, warned=warned)


def read_whole(place: Place, columns: Columns) -> Split:
    """Read one table without splits; DataError where a column names some."""
    return whole_of(_read_file(place, columns), columns, ImageFiles(place.path.parent), place=str(place))


def whole_of(table: Table, columns: Columns, files: ImageFiles, *, place: str) -> Split:
    """Return all rows of a table as one split; DataError where a column names splits."""
    if columns.split in table.columns:
        raise DataError(
            f"{table.path}: its column {columns.split!r} divides it already; give {table.path} without the layout "
            "undivided, or drop that column"
        )
    split = read_rows(table, columns, files, place=place, prefix=())
    _tell_rest(split, _named(table, files), files, table.path.name)
    return split


def split_tables(root: Path) -> dict[str, list[Path]]:
    """Find the tables of splits in a folder or in its data/, parts in order; DataError where one is there twice."""
    found: dict[str, list[Path]] = {}
    for folder in (root, root / "data"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name, suffix = path.stem.lower(), path.suffix.lower()
            split = name.partition("-")[0] if suffix == ".parquet" else name
            if suffix in SUFFIXES and split in ("train", *TESTS) and path.is_file():
                found.setdefault(split, []).append(path)
        if found:
            break
    for split, paths in found.items():
        if len(paths) > 1 and not all("-" in path.stem and path.suffix.lower() == ".parquet" for path in paths):
            names = [path.name for path in paths]
            raise DataError(f"{root}: expected one table for {split}, got {names}; keep the one that is meant")
    return found


def splits_of(table: Table, columns: Columns, files: ImageFiles, *, root: str) -> Reading:
    """Divide a table by its column of splits; DataError where it has none, or not both."""
    if columns.split not in table.columns:
        raise DataError(
            f"{table.path}: expected the column {columns.split!r} with train and test in one table, got "
            f"{list(table.columns)[:8]}; name yours with split_column (--data.split-column), write one table each, or "
            "have a share held out with data.layout undivided"
        )
    parts: dict[str, list[tuple[int, dict[str, object]]]] = {"train": [], "test": [], "validation": []}
    strange = []
    for number, row in table.rows:
        name = SPLITS.get(str(row.get(columns.split)).strip().lower())
        if name is None:
            got = f"got {row.get(columns.split)!r}"[:60]
            strange.append(
                f"{table.path} {table.row_word} {number}: expected train, test or validation, {got}; correct it"
            )
        else:
            parts[name].append((number, row))
    test = "test" if parts["test"] or not parts["validation"] else "validation"
    splits = []
    for name in ("train", test):
        first = name == "train"  # what is wrong with the whole table is told once
        one = dataclasses.replace(
            table,
            rows=parts[name],
            broken=[*table.broken, *strange] if first else [],
            problems=table.problems if first else [],
            notes=table.notes if first else [],
        )
        split = read_rows(one, columns, files, place=f"{table.path} ({name})", prefix=(name,))
        if not parts[name] and not split.broken:
            split.problems.append(f"{table.path}: expected rows of the split {name}, got none; add them")
        splits.append(split)
    _tell_rest(splits[0], _named(table, files), files, table.path.name)
    warned = [] if test == "test" else [f"{root}: no row is of the split test, validation is taken for it"]
    left = len(parts["validation"]) if test == "test" else 0
    told = [f"{root}: {left:,} rows of the split validation are left out"] if left else []
    return joined(root, *splits, warned=warned, told=told)


def _read_file(place: Place, columns: Columns) -> Table:
    if place.path.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{place}: expected a folder, or a table ({kinds}), got another file; give one of them")
    return _read([place.path], columns)


def _read(paths: Sequence[Path], columns: Columns) -> Table:
    if paths[0].suffix.lower() == ".parquet":
        return read_parquet(paths, columns)
    return read_table(paths[0], columns)


def _named(table: Table, files: ImageFiles) -> set[tuple[str, ...]]:
    if table.image is None or table.images is not None:
        return set()
    return {parts for _, row in table.rows if (parts := files.parts(row.get(table.image))) is not None}


def _tell_rest(split: Split, named: set[tuple[str, ...]], files: ImageFiles, tables: str) -> None:
    if named:
        tell_images_without_row(split, named, files, tables)
