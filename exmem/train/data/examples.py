"""A set of images with texts and classes: a `datasets.Dataset` of three columns, and what the trainer asks of it."""

import functools
import hashlib
import json
import os
import secrets
import unicodedata
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import DataError
from exmem.train.data.arrow import images_held
from exmem.train.data.decoding import decoded, source_key
from exmem.train.data.images import decode_image

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["ImageText"]


class ImageText:
    """Images with texts and labels, held as a `datasets.Dataset`; images are decoded when they are asked for.

    Parameters
    ----------
    paths : sequence of path or None
        Files of the images, N of them; they are not read. None where an example has a text alone.
    texts : sequence of str
        One text per example; empty where there is none.
    labels : array-like, shape (N,), integer
        Classes, as indices into `class_names`.
    class_names : sequence of str
        Names of the classes, each once.
    ids : sequence of str, optional
        Names of the examples that do not depend on where they lie; folder and file, `folder/file`, when left out, and
        the number of the row where there is no file.

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
    Images that were decoded last stay in RAM, those of all data sets of a process together, at most `EXMEM_IMAGE_BYTES`
    (1GB when unset; 0 holds none). A file that has changed since is decoded again.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str] | None],
        texts: Sequence[str],
        labels: ArrayLike,
        class_names: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
    ) -> None:
        files = [None if path is None else Path(path) for path in paths]
        names = [str(row) if path is None else f"{path.parent.name}/{path.name}" for row, path in enumerate(files)]
        images = [None if path is None else {"path": str(path), "bytes": None} for path in files]
        self._hold(_dataset(names if ids is None else ids, images, texts, labels, class_names))

    def _hold(self, dataset: "Dataset", origin: str | None = None, rows: NDArray[np.int64] | None = None) -> None:
        """Hold a data set of the four columns; `origin` names the images in `rows` of one that it is a part of."""
        self.dataset = dataset
        self._origin = secrets.token_hex(8) if origin is None else origin
        self._rows = np.arange(len(dataset)) if rows is None else rows
        _checked(self.labels, len(self.class_names))

    @classmethod
    def from_rows(
        cls,
        table: "Dataset",
        rows: Sequence[Any],
        texts: Sequence[str],
        labels: ArrayLike,
        class_names: Sequence[str],
        *,
        ids: Sequence[str],
    ) -> "ImageText":
        """Take images that lie in a table, and give them texts and labels.

        Parameters
        ----------
        table : datasets.Dataset
            Has the column `image`, as `Image(decode=False)`.
        rows : sequence of int
            Rows of the table, N of them.
        texts : sequence of str
            One text per example.
        labels : array-like, shape (N,), integer
            Classes, as indices into `class_names`.
        class_names : sequence of str
            Names of the classes, each once.
        ids : sequence of str
            Names of the examples.

        Returns
        -------
        ImageText
            Those examples.

        Raises
        ------
        DataError
            If a label is no index into the names.
        """
        import datasets

        places, length = np.asarray(rows, np.int64), len(table)
        whole_ids, whole_texts = np.full(length, "", object), np.full(length, "", object)
        whole_labels = np.zeros(length, np.int64)
        whole_ids[places], whole_texts[places], whole_labels[places] = ids, texts, labels
        texts, labels = whole_texts.tolist(), whole_labels
        others = _dataset(whole_ids.tolist(), [None] * length, texts, labels, class_names).remove_columns("image")
        # Columns beside the whole table, rows chosen after: so `datasets` copies no image.
        whole = datasets.concatenate_datasets([table.select_columns(["image"]), others], axis=1)
        if not np.array_equal(places, np.arange(length)):
            whole = whole.select(places)
        made = cls.__new__(cls)
        made._hold(whole.select_columns(["id", "image", "text", "label"]))
        return made

    @classmethod
    def from_dataset(cls, dataset: "Dataset") -> "ImageText":
        """Wrap a data set of Hugging Face `datasets`, whose images may be files or lie in it.

        Parameters
        ----------
        dataset : datasets.Dataset
            Has the columns `image` (`Image`) and `label` (`ClassLabel`), and may have `text` (without it all texts are
            empty) and `id`; others are dropped. A data set with `text` needs no `image`.

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
        if "image" not in kinds and "text" in kinds:
            nothing: Any = datasets.Dataset.from_dict(
                {"image": [None] * len(table)}, features=datasets.Features(image=datasets.Image(decode=False))
            )
            table = datasets.concatenate_datasets([table, nothing], axis=1)
            kinds = table.features
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
            table = table.add_column("id", [_name(row, *held) for row, held in enumerate(images_held(table))])
        for name in ("text", "label"):
            rows = [row for row, value in enumerate(table[name][:]) if value is None]
            if rows:
                raise DataError(
                    f"expected a {name} in every row, got none in the rows {rows[:5]}; fill it in or drop them"
                )
        wrapped = cls.__new__(cls)
        wrapped._hold(table.select_columns(["id", "image", "text", "label"]))
        return wrapped

    def _digest_of(self, row: int) -> str:
        """Name the bytes of an image, one after the other: they need not all be in memory."""
        size, path = self._held[row]
        if size is None:
            return "" if path is None else _digest_of_file(path)
        return _digest(self.dataset[row]["image"]["bytes"])

    def __len__(self) -> int:
        return len(self.dataset)

    @functools.cached_property
    def _held(self) -> list[tuple[int | None, str | None]]:
        return images_held(self.dataset)

    @functools.cached_property
    def has_images(self) -> bool:
        """Whether every example has an image."""
        return all(size is not None or path is not None for size, path in self._held)

    @functools.cached_property
    def paths(self) -> tuple[Path, ...]:
        """Files of the images; of those that lie in the data set, and of examples without one, their ids."""
        held = zip(self.ids, self._held, strict=True)
        return tuple(Path(name if size is not None or path is None else path) for name, (size, path) in held)

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
        image: dict[str, Any] | None = row["image"]
        if image is None:
            raise DataError(f"{row['id']}: expected an image, got a text alone; add it, or use data.modalities text")
        return decode_image(image["path"] if image["bytes"] is None else row["id"], size, data=image["bytes"])

    def images(self, indices: ArrayLike, size: int | tuple[int, int]) -> NDArray[np.uint8]:
        """Decode several images, in threads; those that were decoded last are not decoded again. See `image`.

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
        rows = wanted.tolist()
        keys = [(self._key_of(row), height, width) for row in rows]
        decoded.many(keys, lambda at: self.image(rows[at], (height, width)), out)
        return out

    def _key_of(self, row: int) -> Hashable:
        """Name an image that may be held decoded: a file as it is now, or a row of what this is a part of."""
        size, path = self._held[row]
        return (self._origin, int(self._rows[row])) if size is not None or path is None else source_key(path)

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
        part = ImageText.__new__(ImageText)
        part._hold(self.dataset.select(rows), self._origin, self._rows[rows])
        return part

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
            contents = list(pool.map(self._digest_of, range(len(self))))
        ids = [unicodedata.normalize("NFC", name) for name in self.ids]  # other systems may write the same in NFD
        described = [ids, contents, self.texts, self.labels.tolist(), self.class_names]
        return _digest(json.dumps(described).encode())


def _dataset(
    ids: Sequence[str], images: Sequence[Any], texts: Sequence[str], labels: ArrayLike, class_names: Sequence[str]
) -> "Dataset":
    import datasets

    features = {"id": datasets.Value("string"), "image": datasets.Image(decode=False)}
    features |= {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(class_names))}
    numbers = _checked(np.asarray(labels, np.int64), len(class_names))
    columns = {"id": list(ids), "image": list(images), "text": list(texts), "label": numbers}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _name(row: int, size: int | None, path: str | None) -> str:
    file = Path(path or "image")
    return f"{file.parent.name}/{file.name}" if size is None and path is not None else f"{row}/{file.name}"


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
        raise DataError(f"{path}: expected an image, got {error.strerror}; replace it or leave it out") from error


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
