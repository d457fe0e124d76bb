"""Images, texts and labels from a folder in the form of Hugging Face's `imagefolder`."""

import os
import warnings

from exmem.errors import DataError, DataWarning
from exmem.train.data.examples import ImageText
from exmem.train.data.reading import Columns, Split, one_line, read_folder

__all__ = ["load_imagefolder"]


def load_imagefolder(
    folder: str | os.PathLike[str],
    *,
    text_column: str | None = "text",
    label_column: str = "label",
    needs_text: bool = True,
) -> tuple[ImageText, ImageText]:
    """Load the training and the test split of a folder in `imagefolder` form; images are not decoded.

    Parameters
    ----------
    folder : path
        Holds `train/` and `test/` (or `validation/`, `valid/` or `val/`), each with images and a `metadata.jsonl` or
        `metadata.csv` that has the columns `file_name`, text and label. Where no texts are needed, images in a folder
        for each class will do.
    text_column : str, optional
        Name of the text column; None leaves all texts empty.
    label_column : str
        Name of the label column; strings or numbers. 1.0 is the class 1, "01" and "1" are two.
    needs_text : bool
        Whether a missing column of texts, or a missing text, is refused. Otherwise such texts are empty.

    Returns
    -------
    train : ImageText
        Training split in order of its files; classes are its labels, numbers by value before words.
    test : ImageText
        Test split, with the same classes.

    Raises
    ------
    DataError
        If a split, column, file or label, or a text that is needed, is missing or cannot be read; the message names
        the first in one line and says what to do.

    Warns
    -----
    DataWarning
        If classes look alike, images have no row, labels were written as 1.0, or another split stands for the test.

    Notes
    -----
    CSV is read as spreadsheets write it: with commas, semicolons or tabs, a byte order mark, quoted newlines and
    empty last rows. `NA`, `null` and the like are texts; an empty cell is an empty text and a missing label.
    `exmem data` lists all that is wrong or odd, and decodes the images, too.
    """
    needed = needs_text and text_column is not None
    reading = read_folder(folder, Columns(text=text_column, label=label_column, needs_text=needed))
    if reading.problems:
        raise DataError(one_line(reading.problems, reading.root))
    for line in reading.warnings:
        warnings.warn(line, DataWarning, stacklevel=2)
    index = {name: label for label, name in enumerate(reading.class_names)}

    def examples(split: Split) -> ImageText:
        return ImageText(
            [reading.root.joinpath(*example.parts) for example in split.examples],
            [example.text for example in split.examples],
            [index[example.label] for example in split.examples],
            reading.class_names,
            ids=[example.name for example in split.examples],
        )

    return examples(reading.train), examples(reading.test)
