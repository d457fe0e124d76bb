"""Where data lies: a folder or a file, or a name on the hub."""

import os
from collections.abc import Iterable
from pathlib import Path

from exmem.errors import DataError, SchemaError
from exmem.tokens.checks import real_number, whole_number
from exmem.train.data.reading import Columns, Split, listing

__all__ = ["HUB", "SPLITS", "TESTS", "Place", "checked_ratio", "is_hub", "lacks_texts", "whole_path", "within"]

HUB = "hf:"
"""What names on the hub begin with."""

TESTS = ("test", "validation", "valid", "val")
"""Splits that may stand for the test, the first that is there."""

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
"""What splits are called in small letters, and which they are."""


def is_hub(place: str | os.PathLike[str]) -> bool:
    """Tell whether a place is `hf:OWNER/NAME`, and no folder that is called so."""
    return os.fspath(place).startswith(HUB) and not Path(place).exists()


def whole_path(place: str | os.PathLike[str], root: Path | None = None) -> Path:
    """Return a place as it is meant wherever one works: a path below `root` made whole, a name on the hub as it is."""
    if is_hub(place):
        return Path(place)
    path = Path(place).expanduser()
    return path.absolute() if root is None else root / path


class Place:
    """A place as it was given; `path` is absolute, and of no use where it is a name on the hub."""

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.is_hub = is_hub(place)
        self.path = Path(place) if self.is_hub else Path(place).expanduser().absolute()

    def __str__(self) -> str:
        return str(self.path)

    def folder(self, expected: str) -> Path:
        """Return the folder; DataError where it is none, which says what was expected."""
        if self.is_hub or not self.path.is_dir():
            what = "a name on the hub" if self.is_hub else "a file" if self.path.exists() else "nothing there"
            raise DataError(f"{self.path}: expected {expected}, got {what}; give the folder of the data")
        return self.path


def within(place: Place, names: Iterable[str], needed: Iterable[str], layout: str) -> Path:
    """Return the folder that has what a layout needs: the one given, or one of these names in it.

    DataError lists what is missing and what was found.
    """
    root, wanted = place.folder(f"a folder in the layout {layout}"), list(needed)
    folders = [root, *(root / name for name in names if (root / name).is_dir())]
    lacks = {folder: [name for name in wanted if not (folder / name).exists()] for folder in folders}
    best = min(folders, key=lambda folder: len(lacks[folder]))
    if lacks[best]:
        raise DataError(
            f"{best}: expected the layout {layout}, which has {', '.join(wanted)}; missing: {', '.join(lacks[best])}; "
            f"found: {listing(best)}; unpack it as it is distributed (`exmem data --help` names the layouts)"
        )
    return best


def checked_ratio(layout: str, test_ratio: float, seed: int) -> float:
    """Return the share that a layout holds out for the test; SchemaError if it or the seed cannot be."""
    whole_number(seed, f"layout {layout!r}: seed")
    ratio = real_number(test_ratio, f"layout {layout!r}: test_ratio")
    if not 0 < ratio < 1:
        raise SchemaError(f"layout {layout!r}: test_ratio must be above 0 and below 1, got {ratio:g}")
    return ratio


def lacks_texts(split: Split, columns: Columns, layout: str, remedy: str = "") -> None:
    """Tell that a layout has no texts where they are needed."""
    if columns.needs_text:
        remedy = remedy or "use data.modalities image (exmem train --data.modalities image)"
        split.problems.append(f"{split.place}: expected texts, the layout {layout} has none; {remedy}")
