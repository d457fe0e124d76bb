"""What data holds, wherever it comes from, with everything that is wrong or odd in it; no image is decoded."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exmem.train.data.labels import alike, natural

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Columns", "Example", "Reading", "Split", "joined", "listing", "one_line"]

_IMAGE_COLUMNS = ("file_name", "image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table hold what, and what must be there.

    Parameters
    ----------
    text : str, optional
        Column of the texts; None leaves all texts empty.
    label : str
        Column of the classes; strings or numbers. 1.0 is the class 1, "01" and "1" are two.
    image : str, optional
        Column of the images; when left out `file_name`, or `image` where there is no column of that name.
    split : str
        Column that says which rows are for training and which for the test, where all are in one table.
    needs_text : bool, optional
        Whether a missing column of texts, or a missing text, is refused; otherwise such texts are empty. None: only a
        missing text in a column that is there.
    needs_image : bool, optional
        The same of images; otherwise such examples have a text alone.
    """

    text: str | None = "text"
    label: str = "label"
    image: str | None = None
    split: str = "split"
    needs_text: bool | None = True
    needs_image: bool | None = True

    @property
    def images(self) -> tuple[str, ...]:
        """Names that the column of the images may have, the first one that is there counts."""
        return _IMAGE_COLUMNS if self.image is None else (self.image,)

    def image_in(self, names: Sequence[str]) -> str | None:
        """Return the column of the images among some.

        Parameters
        ----------
        names : sequence of str
            Columns of a table.
        """
        return next((name for name in self.images if name in names), None)


@dataclasses.dataclass(frozen=True, order=True)
class Example:
    """Parts of a name that does not depend on the place, a text and the name of a class.

    `image` is a file, or a row of the split's table of images, or nothing.
    """

    parts: tuple[str, ...]
    text: str
    label: str
    image: Path | int | None = dataclasses.field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Parts with slashes."""
        return "/".join(self.parts)


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of a split; single ones that are broken, what else is wrong, what may be a mistake, what is merely told.

    `place` is a folder or a file, or the name of a set on the hub; `table` has images that lie in the data, in the
    column `image`.
    """

    place: str
    examples: list[Example] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    has_texts: bool = False
    has_images: bool = True
    table: "Dataset | None" = None

    @property
    def name(self) -> str:
        """The last part of its place."""
        return Path(self.place).name

    def source(self, example: Example) -> tuple[str, bytes | None] | None:
        """Return the file of an example's image, or its name and the image itself; None where it has none."""
        if not isinstance(example.image, int):
            return None if example.image is None else (str(example.image), None)
        assert self.table is not None
        held = self.table[example.image]["image"]
        return None if held is None else (held["path"] if held["bytes"] is None else example.name, held["bytes"])

    def image_bytes(self, example: Example) -> int:
        """Count the bytes of an example's image, as far as it is there."""
        held = self.source(example)
        if held is None or held[1] is not None:
            return 0 if held is None or held[1] is None else len(held[1])
        return Path(held[0]).stat().st_size if Path(held[0]).exists() else 0


@dataclasses.dataclass(frozen=True)
class Reading:
    """Both splits of the data, and what is told of the whole."""

    root: str
    train: Split
    test: Split
    told: Sequence[str] = ()
    warned: Sequence[str] = ()

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the training split, numbers by value before words."""
        return tuple(sorted({example.label for example in self.train.examples}, key=natural))

    @property
    def problems(self) -> list[str]:
        """All that is wrong, single examples that are broken included."""
        lines = [line for split in (self.train, self.test) for line in (*split.problems, *split.broken)]
        whole = not (self.train.problems or self.train.broken)  # a broken row may be the one that has the class
        return lines + (self._strange if whole else [])

    @property
    def fatal(self) -> list[str]:
        """What is wrong even where broken examples are left out."""
        empty = [
            f"{split.place}: expected at least one example that is whole, got {len(split.broken):,} broken ones"
            for split in (self.train, self.test)
            if split.broken and not split.examples
        ]
        return [*self.train.problems, *self.test.problems, *empty, *([] if empty else self._strange)]

    @property
    def warnings(self) -> list[str]:
        """What may be a mistake."""
        lines = [f"{split.place}: {line}" for split in (self.train, self.test) for line in split.warnings]
        return [*lines, *self.warned, *(f"{self.root}: {line}" for line in alike([*self.class_names, *self._unknown]))]

    @property
    def notes(self) -> list[str]:
        """What is merely told."""
        return [*self.told, *(f"{split.place}: {line}" for split in (self.train, self.test) for line in split.notes)]

    @functools.cached_property
    def _unknown(self) -> list[str]:
        return sorted({example.label for example in self.test.examples} - {*self.class_names}, key=natural)

    @property
    def _strange(self) -> list[str]:
        if not self._unknown or self.train.problems:
            return []
        lacks = f"which {self.train.place} lacks; add or drop them"
        return [f"{self.test.place} has the classes {self._unknown[:5]}, {lacks}"]


def joined(root: str, train: Split, test: Split, *, told: Sequence[str] = (), warned: Sequence[str] = ()) -> Reading:
    """Put two splits together; one that has nothing, not even what is broken, is a problem."""
    for split in (train, test):
        if not split.examples and not split.problems and not split.broken:
            split.problems.append(f"{split.place}: expected at least one example, got none; add it")
    return Reading(root, train, test, told, warned)


def one_line(problems: Sequence[str], root: str) -> str:
    """Name the first of several problems, and how to see the others."""
    more = len(problems) - 1
    return problems[0] + (f" (and {more:,} more: `exmem data {root}` lists them)" if more else "")


def listing(folder: Path) -> str:
    """Name the first files of a folder, for messages."""
    names = sorted(path.name for path in folder.iterdir())
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "an empty folder"
