"""CUB-200-2011 (Wah et al. 2011) as it is distributed, with the captions of Reed et al. 2016 if they are there.

    CUB_200_2011/images.txt                 "1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"
    CUB_200_2011/image_class_labels.txt     "1 1"
    CUB_200_2011/train_test_split.txt       "1 0", where 1 is training
    CUB_200_2011/classes.txt                "1 001.Black_footed_Albatross"
    CUB_200_2011/images/
    text_c10/<class>/<image>.txt            ten captions, a line each; in the folder or beside it

Of the captions one is taken, the first unless the option says otherwise: `cub:caption=3`, from 0.
"""

from pathlib import Path

from exmem.errors import DataError
from exmem.tokens.checks import whole_number
from exmem.train.data.files import ImageFiles
from exmem.train.data.layouts.places import Place, lacks_texts, within
from exmem.train.data.reading import Columns, Example, Reading, Split, joined

__all__ = ["read_cub"]

_NEEDED = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images")


def read_cub(place: Place, columns: Columns, *, caption: int = 0) -> Reading:
    """Read the lists and, where texts are wanted and there, a caption for each image."""
    whole_number(caption, "layout 'cub': caption")
    needed = _NEEDED[:4] if columns.needs_image is False else _NEEDED
    root = within(place, ("CUB_200_2011",), needed, "cub")
    images, labels, training, classes = (_pairs(root / name) for name in _NEEDED[:4])
    for listed, others in zip(_NEEDED[1:3], (labels, training), strict=True):
        if strange := sorted(set(others) - set(images), key=int)[:5]:
            raise DataError(
                f"{root / 'images.txt'}: expected the images that {listed} has, lacks {strange}; unpack it again"
            )
    captions = next((path for path in (root / "text_c10", root.parent / "text_c10") if path.is_dir()), None)
    has_texts = captions is not None and columns.text is not None
    splits = {name: Split(f"{root} ({name})", has_texts=has_texts) for name in ("train", "test")}
    files = ImageFiles(root / "images")
    for number, file in images.items():
        name = {"1": "train", "0": "test"}.get(training.get(number, ""))
        split = splits[name or "train"]
        example = _example(files, number, file, classes.get(labels.get(number, "")), name, captions, caption, columns)
        if isinstance(example, Example):
            split.examples.append(example)
        else:
            split.broken.append(f"{files.path((file,))}: {example}")
    for split in splits.values():
        split.examples.sort()
        if captions is None:
            remedy = f"put text_c10/ of Reed et al. 2016 into {root}, or use data.modalities image"
            lacks_texts(split, columns, "cub", remedy)
    return joined(str(root), splits["train"], splits["test"])


def _example(
    files: ImageFiles,
    number: str,
    file: str,
    label: str | None,
    name: str | None,
    captions: Path | None,
    caption: int,
    columns: Columns,
) -> Example | str:
    """Return the example of an image, or what is wrong with it."""
    parts = files.parts(file)
    if name is None or label is None:
        lacks = "train_test_split.txt" if name is None else "image_class_labels.txt or classes.txt"
        return f"no line for the image {number} in {lacks}; add it, or drop it from images.txt"
    if parts is None:
        return f"expected the name of a file in {files.folder}; correct it in images.txt"
    wrong = files.wrong(parts)
    if wrong is not None and columns.needs_image is not False:
        return wrong
    text = ""
    if captions is not None and columns.text is not None:
        path = captions.joinpath(*parts).with_suffix(".txt")
        lines = _lines(path) if path.is_file() else []
        if not lines and columns.needs_text is not False:
            return f"expected captions in {path}, got none; add it"
        text = lines[caption % len(lines)] if lines else ""
    return Example(parts, text, label, None if wrong is not None else files.folder.joinpath(*parts))


def _pairs(path: Path) -> dict[str, str]:
    """Read lines of a number and what it has."""
    pairs = {}
    for line, written in enumerate(_lines(path), 1):
        number, _, value = written.partition(" ")
        if not number.isdecimal() or not value.strip() or number in pairs:
            raise DataError(f"{path}: expected a number, once, and what it has in line {line}, got {written[:60]!r}")
        pairs[number] = value.strip()
    return pairs


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
