"""A set of images with texts and classes: a `datasets.Dataset` of three columns, and what the trainer asks of it."""

import functools
import hashlib
import json
import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import DataError
from exmem.train.data.images import decode_image

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["ImageText"]


class ImageText:
    """Images with texts and labels, held as a `datasets.Dataset`; images are decoded when they are asked for.

    Parameters
    ----------
    paths : sequence of path
        Files of the images, N of them; they are not read.
    texts : sequence of str
        One text per image; empty where there is none.
    labels : array-like, shape (N,), integer
        Classes, as indices into `class_names`.
    class_names : sequence of str
        Names of the classes, each once.
    ids : sequence of str, optional
        Names of the images that do not depend on where they lie; folder and file, `folder/file`, when left out.

    Attributes
    ----------
    dataset : datasets.Dataset
        The columns `id` (string), `image` (`Image(decode=False)`), `text` (string) and `label` (`ClassLabel`).

    Raises
    ------
    DataError
        If a label is no index into the names.

    Notes
    -----
    Reads nothing from and writes nothing to the cache of `datasets`, which knows a file by its time of change.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        texts: Sequence[str],
        labels: ArrayLike,
        class_names: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
    ) -> None:
        import datasets

        files = [Path(path) for path in paths]
        features = {"id": datasets.Value("string"), "image": datasets.Image(decode=False)}
        features |= {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(class_names))}
        columns = {
            "id": [f"{path.parent.name}/{path.name}" for path in files] if ids is None else list(ids),
            "image": [str(path) for path in files],
            "text": list(texts),
            "label": _checked(np.asarray(labels, np.int64), len(class_names)),
        }
        self.dataset: Dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    @classmethod
    def from_dataset(cls, dataset: "Dataset") -> "ImageText":
        """Wrap a data set of Hugging Face `datasets`, whose images may be files or lie in it.

        Parameters
        ----------
        dataset : datasets.Dataset
            Has the columns `image` (`Image`) and `label` (`ClassLabel`), and may have `text` (without it all texts are
            empty) and `id`; others are dropped.

        Returns
        -------
        ImageText
            The same rows.

        Raises
        ------
        DataError
            If a column is missing or of another kind, or a text or a label is missing in a row.
        """
        import datasets

        table, kinds = dataset.with_format(None), dataset.features
        for name, kind, remedy in (
            ("image", datasets.Image, "cast_column(column, datasets.Image())"),
            ("label", datasets.ClassLabel, "class_encode_column(column)"),
        ):
            if not isinstance(kinds.get(name), kind):
                raise DataError(
                    f"expected a data set with the column {name!r} of the kind {kind.__name__}, got {dict(kinds)}; "
                    f"use rename_column(column, {name!r}) and {remedy}"
                )
        if "text" not in kinds:
            table = table.add_column("text", [""] * len(table))
        table = table.cast_column("image", datasets.Image(decode=False))
        if "id" not in kinds:
            table = table.add_column("id", [_name(row, image) for row, image in enumerate(table["image"])])
        for name in ("text", "label"):
            rows = [row for row, value in enumerate(table[name][:]) if value is None]
            if rows:
                raise DataError(
                    f"expected a {name} in every row, got none in the rows {rows[:5]}; fill it in or drop them"
                )
        wrapped = cls.__new__(cls)
        wrapped.dataset = table.select_columns(["id", "image", "text", "label"])
        _checked(wrapped.labels, len(wrapped.class_names))
        return wrapped

    def __len__(self) -> int:
        return len(self.dataset)

    @functools.cached_property
    def paths(self) -> tuple[Path, ...]:
        """Files of the images; of those that lie in the data set, their ids."""
        images = zip(self.ids, self.dataset["image"], strict=True)
        return tuple(Path(image["path"] if image["bytes"] is None else name) for name, image in images)

    @functools.cached_property
    def texts(self) -> tuple[str, ...]:
        """One text per image."""
        return tuple(self.dataset["text"][:])

    @functools.cached_property
    def labels(self) -> NDArray[np.int64]:
        """Classes, as indices into `class_names`, shape (N,)."""
        return np.array(self.dataset["label"][:], np.int64)

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.dataset.features["label"].names)

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of the images, `folder/file`; they do not depend on where the data lies."""
        return tuple(self.dataset["id"][:])

    def image(self, index: int, size: int | tuple[int, int]) -> NDArray[np.uint8]:
        """Decode an image: scaled with antialiasing until it covers `size`, then cut around its centre.

        It is turned as its EXIF orientation says. Integers of 16 bits, and floats between 0 and 1, are scaled to 8
        bits. What is transparent shows white (a choice). Of an animation the first image is taken. A JPEG file that is
        much larger is decoded at a half, a quarter or an eighth.

        Parameters
        ----------
        index : int
            Which image.
        size : int or tuple of int
            Side of a square in pixels, or height and width.

        Returns
        -------
        ndarray, shape (H, W, 3), uint8
            RGB.

        Raises
        ------
        DataError
            If the file is missing, no image, of values whose range is not known, or of more than 400,000,000 pixels
            (those of JPEG files are counted at the size at which they are decoded).
        """
        row = self.dataset[int(index)]
        image: dict[str, Any] = row["image"]
        return decode_image(image["path"] if image["bytes"] is None else row["id"], size, data=image["bytes"])

    def images(self, indices: ArrayLike, size: int | tuple[int, int]) -> NDArray[np.uint8]:
        """Decode several images; see `image`.

        Parameters
        ----------
        indices : array-like, shape (B,), integer
            Which images.
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
        """Return some of the examples, in the order asked; all names of classes stay.

        Parameters
        ----------
        indices : array-like, shape (B,), integer
            Which examples; negative ones count from the last.

        Returns
        -------
        ImageText
            Those examples.
        """
        rows = np.arange(len(self))[np.asarray(indices, np.int64)]
        return ImageText.from_dataset(self.dataset.select(rows))

    def key(self) -> str:
        """Name the content: ids, bytes of the images, texts, labels and names of the classes, in order.

        Returns
        -------
        str
            A hash of 32 digits, the same wherever the data lies and whenever it was written.

        Raises
        ------
        DataError
            If a file cannot be read.

        Notes
        -----
        Reads every file once, in threads; 1,540 images of 20 kB take a tenth of a second.
        """
        with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
            digests = [  # bytes that lie in the data set at once: they need not all be in memory
                pool.submit(_digest_of_file, image["path"]).result
                if image["bytes"] is None
                else _digest(image["bytes"])
                for image in self.dataset["image"]
            ]
            contents = [digest if isinstance(digest, str) else digest() for digest in digests]
        ids = [unicodedata.normalize("NFC", name) for name in self.ids]  # other systems may write the same in NFD
        described = [ids, contents, self.texts, self.labels.tolist(), self.class_names]
        return _digest(json.dumps(described).encode())


def _name(row: int, image: dict[str, Any]) -> str:
    path = Path(image["path"] or "image")
    return f"{path.parent.name}/{path.name}" if image["bytes"] is None else f"{row}/{path.name}"


def _checked(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise DataError(
            f"expected labels from 0 to {num_classes - 1}, the indices of class_names, got {labels.min()} to "
            f"{labels.max()}; name every class, or drop those rows"
        )
    return labels


def _digest_of_file(path: str) -> str:
    try:
        return _digest(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: expected an image, got {error.strerror}; replace it or drop its row") from error


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
