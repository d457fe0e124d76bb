"""UPMC Food-101 (Wang et al. 2015) as it is distributed: images with the titles of the pages that they are from.

images/train/<class>/<class>_0.jpg
images/test/<class>/...
texts/train_titles.csv      rows of image, title, class; without a line that names the columns
texts/test_titles.csv
"""

import dataclasses
from pathlib import Path

from exmem.train.data.files import ImageFiles
from exmem.train.data.layouts.places import Place, within
from exmem.train.data.reading import Columns, Reading, Split, joined
from exmem.train.data.rows import read_rows, tell_images_without_row
from exmem.train.data.tables import read_lines

__all__ = ["read_food101"]

_NEEDED = ("texts/train_titles.csv", "texts/test_titles.csv")
_NAMES = ("image", "title", "class")


def read_food101(place: Place, columns: Columns) -> Reading:
    """Read titles and the images that they name; an image without a title is left out."""
    wanted = [*(() if columns.needs_image is False else ("images/train", "images/test")), *_NEEDED]
    root = within(place, ("UPMC_Food101", "food101", "upmcfood101"), wanted, "food101")
    title = None if columns.text is None else "title"
    own = dataclasses.replace(columns, text=title, label="class", image="image")
    return joined(str(root), _read_split(root, "train", own), _read_split(root, "test", own))


def _read_split(root: Path, name: str, columns: Columns) -> Split:
    files, table = ImageFiles(root / "images" / name), read_lines(root / "texts" / f"{name}_titles.csv", _NAMES)
    rows = [
        (line, row | {"image": f"{row['class']}/{row['image']}" if row["image"].strip() else ""})
        for line, row in table.rows
        if files.is_image((row["image"],)) or line > 1  # some copies name the columns
    ]
    table = dataclasses.replace(table, rows=rows, image="image")
    split = read_rows(table, columns, files, place=str(root / "images" / name), prefix=(name,))
    named = {parts for _, row in rows if (parts := files.parts(row["image"])) is not None}
    tell_images_without_row(split, named, files, table.path.name)
    return split
