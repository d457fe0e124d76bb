"""Images, texts and labels from a folder in Hugging Face `imagefolder` form."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.backbones.packaged.fetching import cache_dir
from exmem.errors import DataError
from exmem.train.data.images import decode_picture

__all__ = ["ImageText", "load_imagefolder"]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageText:
    """Images with texts and labels; pictures are decoded when they are asked for.

    Parameters
    ----------
    paths : tuple of Path
        Files of the pictures, N of them.
    texts : tuple of str
        One text per picture.
    labels : ndarray, shape (N,), int64
        Classes, as indices into `class_names`.
    class_names : tuple of str
        Names of the classes.
    """

    paths: tuple[Path, ...]
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the pictures, `folder/file`."""
        return tuple(f"{path.parent.name}/{path.name}" for path in self.paths)

    def key(self) -> str:
        """Name the data by what it holds, wherever it lies."""
        digest = hashlib.blake2b(digest_size=16)
        for name, text, label in zip(self.ids, self.texts, self.labels.tolist(), strict=True):
            digest.update(json.dumps([name, text, label]).encode())
        for path in self.paths:
            digest.update(path.read_bytes())
        digest.update(json.dumps(self.class_names).encode())
        return digest.hexdigest()

    def image(self, index: int, size: int | tuple[int, int]) -> NDArray[np.uint8]:
        """Decode a picture: scaled with antialiasing until it covers `size`, then cut around its centre.

        It is turned as its EXIF orientation says. Integers of 16 bits, and floats between 0 and 1, are scaled to 8
        bits. What is transparent shows white (a choice). A JPEG file that is much larger is decoded at a half, a
        quarter or an eighth.

        Parameters
        ----------
        index : int
            Which picture.
        size : int or tuple of int
            Side of a square in pixels, or height and width.

        Returns
        -------
        ndarray, shape (H, W, 3), uint8
            RGB.

        Raises
        ------
        DataError
            If the file is missing, no picture, or of values whose range is not known.
        """
        return decode_picture(self.paths[index], size)

    def images(self, indices: ArrayLike, size: int | tuple[int, int]) -> NDArray[np.uint8]:
        """Decode several pictures; see `image`.

        Parameters
        ----------
        indices : array-like, shape (B,), integer
            Which pictures.
        size : int or tuple of int
            Side of squares in pixels, or height and width.

        Returns
        -------
        ndarray, shape (B, H, W, 3), uint8
            RGB.
        """
        wanted = np.asarray(indices, np.int64)
        height, width = (size, size) if isinstance(size, int) else size
        out = np.empty((len(wanted), height, width, 3), np.uint8)
        for row, index in enumerate(wanted.tolist()):
            out[row] = self.image(index, size)
        return out

    def subset(self, indices: ArrayLike) -> "ImageText":
        """Return some of the examples, in the order asked.

        Parameters
        ----------
        indices : array-like, shape (B,), integer
            Which examples.

        Returns
        -------
        ImageText
            Those examples.
        """
        wanted = np.asarray(indices, np.int64)
        return ImageText(
            tuple(self.paths[index] for index in wanted.tolist()),
            tuple(self.texts[index] for index in wanted.tolist()),
            self.labels[wanted],
            self.class_names,
        )


def load_imagefolder(
    folder: str | os.PathLike[str], *, text_column: str = "text", label_column: str = "label"
) -> tuple[ImageText, ImageText]:
    """Load the training and the test split of a folder in `imagefolder` form.

    Parameters
    ----------
    folder : path
        Holds `train/` and `test/`, each with pictures and a `metadata.jsonl` or `metadata.csv` that has the columns
        `file_name`, text and label.
    text_column : str
        Name of the text column.
    label_column : str
        Name of the label column; strings or integers.

    Returns
    -------
    train : ImageText
        Training split; classes are its labels, sorted.
    test : ImageText
        Test split, with the same classes.

    Raises
    ------
    DataError
        If a split, column, file, text or label is missing; the message says where and what to do.
    """
    root = Path(folder).expanduser().absolute()
    rows = {split: _read(root, split, text_column, label_column) for split in ("train", "test")}
    names = sorted({label for _, _, label in rows["train"]}, key=_natural)
    index = {label: at for at, label in enumerate(names)}
    unknown = sorted({label for _, _, label in rows["test"]} - set(names))
    if unknown:
        raise DataError(f"{root}/test has the classes {unknown[:5]}, which {root}/train lacks; add or drop them")
    train, test = (
        ImageText(
            tuple(path for path, _, _ in found),
            tuple(text for _, text, _ in found),
            np.array([index[label] for _, _, label in found], np.int64),
            tuple(names),
        )
        for found in (rows["train"], rows["test"])
    )
    return train, test


def _read(root: Path, split: str, text_column: str, label_column: str) -> list[tuple[Path, str, str]]:
    # Checked before `datasets` sees the folder: its own messages name neither the split nor the remedy.
    metadata = [root / split / name for name in ("metadata.jsonl", "metadata.csv")]
    if not any(path.exists() for path in metadata):
        raise DataError(
            f"{root / split}: expected a metadata.jsonl or metadata.csv with the columns 'file_name', "
            f"{text_column!r} and {label_column!r}; found none"
        )
    table = _load(root, split)
    missing = {text_column, label_column} - set(table.column_names)
    if missing:
        raise DataError(
            f"{root / split}: metadata lacks the columns {sorted(missing)}, it has {sorted(table.column_names)}; "
            "name yours with text_column and label_column"
        )
    columns = zip(table["image"], table[text_column], table[label_column], strict=True)
    rows = [_row(root / split, *values) for values in columns]
    if not rows:
        raise DataError(f"{root / split}: expected at least one example, got none")
    return sorted(rows)


def _row(folder: Path, picture: dict[str, Any], text: object, label: object) -> tuple[Path, str, str]:
    path = Path(str(picture["path"]))
    if not isinstance(text, str):
        raise DataError(f"{path}: expected a text, got {text!r}; write an empty string where there is none")
    if label is None:
        raise DataError(f"{path}: expected a label, got none; fill it in {folder}'s metadata or drop the row")
    return path, text, str(label)


def _load(root: Path, split: str) -> Any:
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(
            "imagefolder", data_dir=str(root / split), split="train", cache_dir=str(cache_dir() / "datasets")
        )
        return table.cast_column("image", datasets.Image(decode=False))
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{root / split}: `datasets` cannot read this imagefolder: {error}") from error
    finally:
        if bars:
            datasets.enable_progress_bars()


def _natural(label: str) -> tuple[int, int, str]:
    """Sort numbers by value, before words; those of one value ("1", "01") by how they are written."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)
