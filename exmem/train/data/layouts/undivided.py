"""Data without splits: a share of each class is held out for the test.

    metadata.jsonl (or .csv) with file_name, text and label, and images

or a folder of images for each class where no texts are needed; or one table (.csv, .tsv, .jsonl, .parquet) with columns
for image, text and label.

A fifth of each class is for the test, drawn by a seed (a choice); a class of one example is for training. Both are
options: `undivided:test_ratio=0.2,seed=0`. What is drawn of a class does not depend on the others.
"""

import collections
import dataclasses
import unicodedata
import zlib

from exmem.errors import DataError
from exmem.train.data.layouts.division import checked_ratio, held_out
from exmem.train.data.layouts.imagefolder import read_split
from exmem.train.data.layouts.places import TESTS, Place
from exmem.train.data.layouts.tabular import read_whole
from exmem.train.data.reading import Columns, Reading, Split, joined, listing

__all__ = ["read_undivided"]


def read_undivided(place: Place, columns: Columns, *, test_ratio: float = 0.2, seed: int = 0) -> Reading:
    """Read a folder or a table whole, and divide it; DataError where it is divided already."""
    ratio = checked_ratio("undivided", test_ratio, seed)
    if place.path.is_file():
        whole = read_whole(place, columns)
    else:
        root = place.folder("a folder of images without splits, or a table")
        if (root / "train").is_dir() and any((root / name).is_dir() for name in TESTS):
            raise DataError(f"{root}: it is divided already, got {listing(root)}; leave out the layout undivided")
        whole = read_split(root, columns, prefix=())
    train = dataclasses.replace(whole, place=f"{place} (train)", examples=[])
    test = Split(f"{place} (test)", has_texts=whole.has_texts, has_images=whole.has_images, table=whole.table)
    if whole.problems or not whole.examples:
        return Reading(str(place), dataclasses.replace(train, place=whole.place), test)
    classes = collections.defaultdict[str, list[int]](list)
    for at, example in enumerate(whole.examples):
        classes[example.label].append(at)
    tested = set[int]()
    for label, members in classes.items():
        number = zlib.crc32(unicodedata.normalize("NFC", label).encode())
        tested.update(held_out(members, [seed, number], ratio)[1])
    for at, example in enumerate(whole.examples):
        (test if at in tested else train).examples.append(example)
    told = [f"{place}: it has no splits; {ratio:.0%} of each class are for the test, drawn by the seed {seed}"]
    if lone := [label for label, members in classes.items() if len(members) == 1]:
        told.append(f"{place}: {len(lone):,} classes of one example have none in the test: {lone[:5]}")
    return joined(str(place), train, test, told=told)
