"""The form of Hugging Face's `imagefolder`.

    train/  metadata.jsonl (or .csv) with file_name, text and label, and images
    test/   the same (or validation/, valid/, val/)

Where no texts are needed, a folder of images for each class will do.
"""

import collections
import dataclasses
from pathlib import Path, PurePosixPath

from exmem.errors import DataError
from exmem.train.data.files import ImageFiles
from exmem.train.data.layouts.places import TESTS, Place
from exmem.train.data.reading import Columns, Example, Reading, Split, joined, listing
from exmem.train.data.rows import read_rows, tell_images_without_row
from exmem.train.data.tables import read_table

__all__ = ["METADATA", "read_imagefolder", "read_split"]

METADATA = ("metadata.jsonl", "metadata.csv")
"""Files that name the images beside them, one of which a folder may have."""


def read_imagefolder(place: Place, columns: Columns) -> Reading:
    """Read the metadata of a folder, or the names of its files."""
    root = place.folder("a folder with train/ and test/")
    train, test = (read_split(root / name, columns, prefix=(name,)) for name in _split_names(root))
    warned = [] if test.name == "test" else [f"{root}: there is no test/, {test.name}/ is taken for it"]
    return joined(str(root), train, test, warned=warned)


def _split_names(root: Path) -> tuple[str, str]:
    tests = [name for name in TESTS if (root / name).is_dir()]
    if not (root / "train").is_dir() or not tests:
        whole = root / "train" if (root / "train").is_dir() else root
        raise DataError(
            f"{root}: expected the folders train/ and test/ (or validation/), got {listing(root)}; "
            f"divide the images between them, or have a share held out: {whole} with data.layout undivided"
        )
    if "test" not in tests and len(tests) > 1:
        raise DataError(f"{root}: expected one folder for the test, got {tests}; name the one that is meant test")
    return "train", tests[0]


def read_split(folder: Path, columns: Columns, *, prefix: tuple[str, ...]) -> Split:
    """Read the metadata of a folder, or the names of its files; names of examples begin with `prefix`."""
    if columns.needs_image is None:  # metadata of images names them
        columns = dataclasses.replace(columns, needs_image=True)
    metadata = [folder / file for file in METADATA if (folder / file).exists()]
    split, files = Split(str(folder)), ImageFiles(folder)
    if len(metadata) > 1:
        split.problems.append(f"{folder}: there are metadata.jsonl and metadata.csv; keep the one that is meant")
    elif metadata:
        table = read_table(metadata[0], columns)
        split = read_rows(table, columns, files, place=str(folder), prefix=prefix)
        cells = [row.get(table.image) for _, row in table.rows] if table.image is not None else []
        named = {parts for cell in cells if (parts := files.parts(cell)) is not None}
        if split.examples or split.broken:  # else its columns lack
            tell_images_without_row(split, named, files, metadata[0].name)
        if not split.examples and not split.problems and not split.broken:
            split.problems.append(f"{metadata[0]}: expected at least one example, got none; add it")
    elif columns.needs_text:
        split.problems.append(
            f"{folder}: expected a metadata.jsonl or metadata.csv with the columns {columns.images[0]!r}, "
            f"{columns.text!r} and {columns.label!r}, got {listing(folder)}; write it, or "
            "ask for no texts (modalities image): then a folder for each class will do"
        )
    else:
        _read_class_folders(files, split, prefix)
        split.examples.sort()
    return split


def _read_class_folders(files: ImageFiles, split: Split, prefix: tuple[str, ...]) -> None:
    others: collections.Counter[str] = collections.Counter()
    loose = []
    for parts in files.names:
        if parts[-1].startswith("metadata."):
            where = f"metadata belongs in {files.folder}, as {' or '.join(METADATA)}"
            split.problems.append(f"{files.path(parts)}: {where}; move it")
        elif not files.is_image(parts):
            others[PurePosixPath(parts[-1]).suffix.lower() or "no suffix"] += 1
        elif len(parts) == 1:
            loose.append(files.path(parts))
        elif (wrong := files.wrong(parts)) is not None:
            split.broken.append(f"{files.path(parts)}: {wrong}")
        else:
            image = files.folder.joinpath(*parts)
            split.examples.append(Example((*prefix, *parts), "", parts[0], image))
    if not split.examples and not split.problems and not split.broken:
        split.problems.append(
            f"{split.place}: expected a metadata.jsonl or metadata.csv, or a folder of images for each class, got "
            f"{listing(files.folder)}; write one of them"
        )
    else:
        split.broken.extend(f"{place}: lies in no folder of a class; move it into one" for place in loose)
    if others:
        kinds = ", ".join(f"{count:,} of {suffix}" for suffix, count in others.most_common(5))
        split.warnings.append(f"{sum(others.values()):,} files are no images and are left out ({kinds})")
