"""Data without splits: a share of it is held out for the test.

    a folder of images for each class, where no texts are needed
    metadata.jsonl (or .csv) with file_name, text and label, and images
    one table (.csv, .tsv, .jsonl, .parquet) with columns for image, text and label
    what `datasets` saved, or a name on the hub, with one split

About a fifth is for the test: `undivided:test_ratio=0.2,seed=0` (a choice). An example is drawn by its image, or by its
text where it has none, and by the seed: the same image is never on both sides, whatever its name, and no example moves
when others come or go. A class of which nothing is drawn for one side, but for a single image, gets its nearest there.
"""

import dataclasses
import hashlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exmem.errors import DataError
from exmem.train.data.layouts.imagefolder import METADATA, read_split
from exmem.train.data.layouts.places import SPLITS, Place, checked_ratio
from exmem.train.data.layouts.saved import is_saved, read_whole_set
from exmem.train.data.layouts.tabular import read_whole
from exmem.train.data.reading import Columns, Example, Reading, Split, joined, listing

__all__ = ["read_undivided"]

_THREADS = 8  # that read files


def read_undivided(place: Place, columns: Columns, *, test_ratio: float = 0.2, seed: int = 0) -> Reading:
    """Read data whole, and divide it; DataError where it is divided already."""
    ratio = checked_ratio("undivided", test_ratio, seed)
    whole = _whole(place, columns)
    train = dataclasses.replace(whole, place=f"{place} (train)", examples=[])
    test = Split(f"{place} (test)", has_texts=whole.has_texts, has_images=whole.has_images, table=whole.table)
    if whole.problems or not whole.examples:
        return Reading(str(place), dataclasses.replace(train, place=whole.place), test)
    drawn = _drawn(whole, seed)
    by_class = defaultdict[str, list[float]](list)
    for example, chance in zip(whole.examples, drawn, strict=True):
        by_class[example.label].append(chance)
    tested = set[float]()
    for chances in by_class.values():
        lowest, highest = min(chances), max(chances)
        if lowest < highest:
            tested |= {chance for chance in chances if chance < ratio and chance != highest} | {lowest}
    for example, chance in zip(whole.examples, drawn, strict=True):
        (test if chance in tested else train).examples.append(example)
    told = [f"{place}: it has no splits; {len(test.examples):,} of {len(drawn):,} examples are for the test"]
    lone = [label for label, chances in by_class.items() if tested.isdisjoint(chances)]
    if lone:
        told.append(f"{place}: {len(lone):,} classes of one image, or one text, have none in the test: {lone[:5]}")
    return joined(str(place), train, test, told=told)


def _whole(place: Place, columns: Columns) -> Split:
    if place.is_hub or (place.path.is_dir() and is_saved(place.path)):
        return read_whole_set(place, columns)
    if place.path.is_file():
        return read_whole(place, columns)
    root = place.folder("a folder of images without splits, or a table")
    metadata = [root / name for name in METADATA if (root / name).exists()]
    if len(metadata) == 1:
        return read_whole(
            Place(metadata[0]), dataclasses.replace(columns, needs_image=columns.needs_image is not False)
        )
    folders = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if folders and all(name.lower() in SPLITS for name in folders):
        remedy = "name them train and test, and leave out the layout undivided"
        if len(folders) == 1:
            remedy = f"give {root / folders[0]}"
        raise DataError(f"{root}: expected no folders of splits, got {listing(root)}; {remedy}")
    return read_split(root, columns, prefix=())


def _content(split: Split, example: Example) -> bytes:
    held = split.source(example)
    if held is None:
        return example.text.encode()
    file, content = held
    return Path(file).read_bytes() if content is None else content


def _drawn(split: Split, seed: int) -> list[float]:
    """Return a number in 0..1 for each example, the same for the same image (or the same text) and seed."""

    def draw(example: Example) -> float:
        digest = hashlib.blake2b(f"{seed} ".encode(), digest_size=8)
        digest.update(_content(split, example))
        return int.from_bytes(digest.digest()) / 2**64

    try:
        if split.table is not None:  # rows of a table are read one after the other
            return [draw(example) for example in split.examples]
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(draw, split.examples))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); correct that or leave it out") from error
