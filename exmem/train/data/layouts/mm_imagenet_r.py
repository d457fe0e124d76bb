"""MM-ImageNet-R: ImageNet-R with a caption for each image.

    imagenet-r/n01443537/*.jpg      or train/ and test/ with such folders; see the layout imagenet_r
    imagenet-r/metadata.jsonl       {"file_name": "n01443537/art_0.jpg", "text": "a drawing of ..."} a line

The paper that has it (Lee et al. 2024, arXiv:2412.09549) published neither captions nor code; this form is ours. The
division into train and test is that of the layout imagenet_r, with the same options.
"""

from exmem.errors import DataError
from exmem.train.data.layouts.imagenet_r import find_images, reading_of
from exmem.train.data.layouts.places import Place
from exmem.train.data.reading import Columns, Reading, Split, listing
from exmem.train.data.tables import read_table

__all__ = ["read_mm_imagenet_r"]


def read_mm_imagenet_r(place: Place, columns: Columns, *, test_ratio: float = 0.2, seed: int = 0) -> Reading:
    """Read images and their captions; an image without one is broken, a caption without an image is told."""
    found = find_images(place, "mm_imagenet_r", test_ratio=test_ratio, seed=seed)
    path = found.root / "metadata.jsonl"
    if not path.is_file():
        raise DataError(
            f"{found.root}: expected the layout mm_imagenet_r, which has metadata.jsonl beside the images; missing: "
            f"metadata.jsonl; found: {listing(found.root)}; write a line with file_name and text for each image"
        )
    table, text = read_table(path, columns), columns.text or "text"
    train, test = (Split(str(found.root / name), has_texts=columns.text is not None) for name in ("train", "test"))
    train.broken.extend(table.broken)
    texts: dict[tuple[str, ...], str] = {}
    doubled = 0
    for line, row in table.rows:
        parts, caption = found.files.parts(row.get(table.image or "")), row.get(text)
        if parts is None or not isinstance(caption, str):
            train.broken.append(f"{path} line {line}: expected file_name and {text}, got {str(row)[:60]}; correct it")
        else:
            doubled += parts in texts
            texts.setdefault(parts, str(caption))
    images = {parts for held in found.splits.values() for parts in held}
    if strange := len(texts.keys() - images):
        train.warnings.append(f"{strange:,} rows of metadata.jsonl name no image of the data and are left out")
    if doubled:
        train.warnings.append(f"{doubled:,} rows of metadata.jsonl name an image again: the first caption counts")
    return reading_of(found, {"train": train, "test": test}, texts)
