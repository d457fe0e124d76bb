"""CIFAR-100 (Krizhevsky 2009) as it is distributed, in either form; both give the same examples.

    cifar-100-python/train, test, meta      pickles of Python 2
or
    cifar-100-binary/train.bin, test.bin    a byte of the superclass, one of the class, 3,072 of pixels
    cifar-100-binary/fine_label_names.txt

Pickles are read by an unpickler that knows arrays of bytes and nothing else: those of strangers run no code. No texts.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError
from exmem.train.data.layouts.pickles import read_pickle
from exmem.train.data.layouts.places import Place, lacks_texts, within
from exmem.train.data.reading import Columns, Example, Reading, Split, joined, listing

__all__ = ["read_cifar100"]

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_HEAD = f"P6\n{_SIDE} {_SIDE}\n255\n".encode()  # of a portable pixmap, which holds pixels as they are
_PYTHON, _BINARY = ("train", "test", "meta"), ("train.bin", "test.bin", "fine_label_names.txt")
Pairs = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_cifar100(place: Place, columns: Columns) -> Reading:
    """Read all images into RAM, 184 MB of them."""
    root = place.folder("a folder in the layout cifar100")
    folders = [root, root / "cifar-100-python", root / "cifar-100-binary"]
    forms = {_BINARY: _of_binary, _PYTHON: _of_pickle}
    for needed, read in forms.items():
        for folder in folders:
            if all((folder / name).is_file() for name in needed):
                return _reading(folder, read(folder), columns)
    if not any((folder / name).exists() for folder in folders for name in (*_PYTHON, *_BINARY)):
        raise DataError(
            f"{root}: expected the layout cifar100, {', '.join(_PYTHON)} or {', '.join(_BINARY)}; missing: all; "
            f"found: {listing(root)}; unpack it as it is distributed"
        )
    python = sum((folder / name).exists() for folder in folders for name in _PYTHON)
    binary = sum((folder / name).exists() for folder in folders for name in _BINARY)
    within(place, ("cifar-100-python", "cifar-100-binary"), _PYTHON if python >= binary else _BINARY, "cifar100")
    raise DataError(f"{root}: expected files in the layout cifar100, got folders of these names; unpack it again")


def _of_binary(folder: Path) -> tuple[dict[str, Pairs], list[str]]:
    names = [line.strip() for line in (folder / "fine_label_names.txt").read_text(encoding="utf-8").splitlines()]
    pairs = {}
    for split in ("train", "test"):
        values = np.fromfile(folder / f"{split}.bin", np.uint8)
        if not len(values) or len(values) % (_PIXELS + 2):
            raise DataError(
                f"{folder / f'{split}.bin'}: expected records of {_PIXELS + 2:,} bytes, got {len(values):,} bytes; "
                "unpack it again"
            )
        records = values.reshape(-1, _PIXELS + 2)
        pairs[split] = records[:, 2:], records[:, 1].astype(np.int64)
    return pairs, [name for name in names if name]


def _of_pickle(folder: Path) -> tuple[dict[str, Pairs], list[str]]:
    names = _entry(folder / "meta", read_pickle(folder / "meta"), "fine_label_names", list)
    pairs = {}
    for split in ("train", "test"):
        path = folder / split
        document = read_pickle(path)
        pixels, labels = _entry(path, document, "data", np.ndarray), _entry(path, document, "fine_labels", list)
        if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(pixels) != len(labels) or not len(labels):
            raise DataError(
                f"{path}: expected as many images of {_PIXELS:,} bytes as labels, got {pixels.shape} and "
                f"{len(labels):,} labels; unpack it again"
            )
        if not all(type(label) is int and 0 <= label < len(names) for label in labels):
            raise DataError(f"{path}: expected labels from 0 to {len(names) - 1}, got others; unpack it again")
        pairs[split] = pixels, np.array(labels, np.int64)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / 'meta'}: expected names of classes, got others; unpack it again")
    return pairs, names


def _entry(path: Path, document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind):
        raise DataError(f"{path}: expected {name} in a file of CIFAR-100, got none; unpack it as it is distributed")
    return value


def _reading(folder: Path, held: tuple[dict[str, Pairs], list[str]], columns: Columns) -> Reading:
    import datasets

    pairs, names = held
    if twice := sorted({name for name in names if names.count(name) > 1})[:5]:
        raise DataError(f"{folder}: expected each name of a class once, got {twice} more than once; unpack it again")
    splits = []
    for name, (pixels, labels) in pairs.items():
        place = f"{folder / name}"
        if labels.max() >= len(names):
            raise DataError(
                f"{place}: expected classes from 0 to {len(names) - 1}, got {labels.max()}; unpack it again"
            )
        coloured = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        images = [{"bytes": _HEAD + image.tobytes(), "path": None} for image in coloured]
        features = datasets.Features(image=datasets.Image(decode=False))
        split = Split(place, table=datasets.Dataset.from_dict({"image": images}, features=features))
        rows = [Example((name, f"{row:05d}"), "", names[label], row) for row, label in enumerate(labels.tolist())]
        split.examples.extend(rows)
        lacks_texts(split, columns, "cifar100")
        splits.append(split)
    return joined(str(folder), *splits)
