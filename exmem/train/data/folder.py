"""Images, texts and labels, in whatever form people have them."""

import dataclasses
import os
import warnings
from collections.abc import Callable

from exmem.errors import DataError, DataWarning
from exmem.registry import Part
from exmem.train.data.decoding import broken_images
from exmem.train.data.examples import ImageText
from exmem.train.data.layouts import read_data
from exmem.train.data.reading import Columns, Reading, Split, one_line

__all__ = ["load_data"]

_NAMED = 3  # examples that are skipped, in a message


def load_data(
    place: str | os.PathLike[str],
    columns: Columns = Columns(),  # noqa: B008 - frozen
    *,
    layout: str | Part = "auto",
    skip_bad: bool = False,
    advance: Callable[[int, int], None] | None = None,
) -> tuple[ImageText, ImageText]:
    """Load the training and the test split of data in any form; images are not decoded but to skip broken ones.

    Parameters
    ----------
    place : path
        A folder, a table (.csv, .tsv, .jsonl, .parquet) with a column that says which split a row is of, or
        `hf:OWNER/NAME` or `hf:OWNER/NAME:CONFIG` for a data set of the Hugging Face hub.
    columns : Columns
        Names of the columns, and what must be there.
    layout : str or Part
        How the data lies: `auto` (an imagefolder, tables, or what `datasets` saved), or a data set as it is
        distributed: `food101`, `imagenet_r`, `mm_imagenet_r`, `cifar100`, `cub`, with options as in
        `imagenet_r:test_ratio=0.2,seed=0`; or `undivided`, of which a share is held out for the test.
    skip_bad : bool
        Leave out examples that are broken: whose image, text or label is missing, or whose image cannot be decoded.
        All images are decoded to find them.
    advance : callable, optional
        Told how many images of how many were decoded to find broken ones.

    Returns
    -------
    train : ImageText
        Training split; classes are its labels, numbers by value before words.
    test : ImageText
        Test split, with the same classes.

    Raises
    ------
    DataError
        If a split, column, file or label, or a text or image that is needed, is missing or cannot be read; the message
        names the first in one line and says what to do.
    SchemaError
        If there is no such layout, or it has no such option.

    Warns
    -----
    DataWarning
        If examples are skipped, and of what may be a mistake: classes that look alike, images without a row, labels
        written as 1.0, another split that stands for the test.

    Notes
    -----
    CSV is read as spreadsheets write it: with commas, semicolons or tabs, a byte order mark, quoted newlines and
    empty last rows. `NA`, `null` and the like are texts; an empty cell is an empty text and a missing label.
    `exmem data` lists all that is wrong or odd, and decodes the images, too. Parquet files are read into RAM; of what
    `datasets` saved, and of folders, images are read when they are asked for.
    """
    if columns.text is None:
        columns = dataclasses.replace(columns, needs_text=False)
    reading, told = read_data(place, columns, layout), list[str]()
    if not skip_bad and reading.problems:
        remedy = "" if reading.fatal else "; or have all that are broken left out with data.skip_bad"
        raise DataError(one_line(reading.problems, reading.root) + remedy)
    if skip_bad:
        reading, told = _without_broken(reading, columns, advance)
    for line in [*told, *reading.warnings]:
        warnings.warn(line, DataWarning, stacklevel=2)
    index = {name: label for label, name in enumerate(reading.class_names)}
    return _images_of(reading.train, index), _images_of(reading.test, index)


def _without_broken(
    reading: Reading, columns: Columns, advance: Callable[[int, int], None] | None
) -> tuple[Reading, list[str]]:
    """Leave out what is broken, and say of how many, and of which first."""
    if reading.train.problems or reading.test.problems:
        raise DataError(one_line(reading.problems, reading.root))
    if columns.needs_image is not False:
        splits = broken_images((reading.train, reading.test), advance)
        reading = dataclasses.replace(reading, train=splits[0], test=splits[1])
    if reading.fatal:
        raise DataError(one_line(reading.fatal, reading.root))
    broken = [*reading.train.broken, *reading.test.broken]
    if not broken:
        return reading, []
    named = "; ".join(broken[:_NAMED])
    more = f"; {len(broken) - _NAMED:,} more: `exmem data {reading.root}` lists them" if len(broken) > _NAMED else ""
    return reading, [f"{len(broken):,} broken examples are skipped: {named}{more}"]


def _images_of(split: Split, index: dict[str, int]) -> ImageText:
    texts, labels = [example.text for example in split.examples], [index[example.label] for example in split.examples]
    ids = [example.name for example in split.examples]
    if split.table is None:
        files = [None if isinstance(example.image, int) else example.image for example in split.examples]
        return ImageText(files, texts, labels, list(index), ids=ids)
    rows = [example.image for example in split.examples]
    return ImageText.from_rows(split.table, rows, texts, labels, list(index), ids=ids)
