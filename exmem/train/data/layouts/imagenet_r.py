"""ImageNet-R (Hendrycks et al. 2021) as it is distributed, or as PILOT divides it.

    imagenet-r/n01443537/*.jpg      a folder for each class; without splits
    imagenet-r/README.txt           lines of "n01443537 goldfish": names of the classes, if it is there
or
    imagenet-r/train/n01443537/*.jpg
    imagenet-r/test/n01443537/*.jpg

Without splits a fifth of each class is for the test, drawn by a seed (a choice; DualPrompt, Wang et al. 2022, takes as
many). Both are options: `imagenet_r:test_ratio=0.2,seed=0`. There are no texts.
"""

import collections
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from exmem.errors import DataError
from exmem.train.data.files import ImageFiles
from exmem.train.data.layouts.places import Place, checked_ratio, lacks_texts
from exmem.train.data.reading import Columns, Example, Reading, Split, joined, listing

__all__ = ["Found", "find_images", "read_imagenet_r", "reading_of"]

_WNID = re.compile(r"n\d{8}")
_NAMED = re.compile(r"(n\d{8})\s+(\S.*)")


class Found(NamedTuple):
    """Images of a folder below `root` by split, train and test, and what is told of the division."""

    root: Path
    files: ImageFiles
    splits: Mapping[str, list[tuple[str, ...]]]
    names: Mapping[str, str]
    told: list[str]


def read_imagenet_r(place: Place, columns: Columns, *, test_ratio: float = 0.2, seed: int = 0) -> Reading:
    """Read the folders of classes, and divide them where they are not."""
    found = find_images(place, "imagenet_r", test_ratio=test_ratio, seed=seed)
    splits = {name: Split(str(found.root / name)) for name in ("train", "test")}
    for split in splits.values():
        lacks_texts(split, columns, "imagenet_r", "use data.modalities image, or captions (the layout mm_imagenet_r)")
    return reading_of(found, splits, {})


def find_images(place: Place, layout: str, *, test_ratio: float, seed: int) -> Found:
    """Find the images of both splits; DataError where there are no folders of classes."""
    test_ratio = checked_ratio(layout, test_ratio, seed)
    root = place.folder(f"a folder in the layout {layout}")
    if not _has_classes(root) and (root / "imagenet-r").is_dir():
        root = root / "imagenet-r"
    files = ImageFiles(root)
    images = [parts for parts in files.names if files.is_image(parts)]
    if (root / "train").is_dir():
        lacks = [name for name in ("train", "test") if not _has_classes(root / name, divided=True)]
        if lacks:
            raise DataError(
                f"{root}: expected the layout {layout}, folders such as train/n01443537 and test/n01443537; missing: "
                f"{', '.join(f'{name}/n...' for name in lacks)}; found: {listing(root)}"
            )
        splits = {
            name: [parts for parts in images if parts[0] == name and len(parts) > 2 and _WNID.fullmatch(parts[1])]
            for name in ("train", "test")
        }
        return Found(root, files, splits, _class_names(root), [])
    if not _has_classes(root):
        raise DataError(
            f"{root}: expected the layout {layout}, folders such as n01443537 with images; missing: all of them; "
            f"found: {listing(root)}; unpack it as it is distributed"
        )
    splits = _divided((parts for parts in images if len(parts) > 1 and _WNID.fullmatch(parts[0])), test_ratio, seed)
    told = [f"{root}: it has no splits; {test_ratio:.0%} of each class are for the test, drawn by the seed {seed}"]
    return Found(root, files, splits, _class_names(root), told)


def reading_of(found: Found, splits: Mapping[str, Split], texts: Mapping[tuple[str, ...], str]) -> Reading:
    """Fill splits with the images found; `texts` by their parts, where there are some."""
    for name, split in splits.items():
        for parts in found.splits[name]:
            wnid = next(part for part in parts if _WNID.fullmatch(part))
            wrong = found.files.wrong(parts)
            if split.has_texts and parts not in texts:
                wrong = "no caption in metadata.jsonl; write one, empty where there is nothing to say"
            if wrong is None:
                image = found.root.joinpath(*parts)
                split.examples.append(Example(parts, texts.get(parts, ""), found.names.get(wnid, wnid), image))
            else:
                split.broken.append(f"{found.files.path(parts)}: {wrong}")
        split.examples.sort()
    return joined(str(found.root), splits["train"], splits["test"], told=found.told)


def _has_classes(folder: Path, *, divided: bool = False) -> bool:
    if not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return any(_WNID.fullmatch(name) for name in names) or (not divided and "train" in names)


def _divided(images: Iterable[tuple[str, ...]], test_ratio: float, seed: int) -> dict[str, list[tuple[str, ...]]]:
    """Draw the test images of each class by the seed and the number of the class; a class of one is for training."""
    classes = collections.defaultdict(list)
    for parts in images:
        classes[parts[0]].append(parts)
    splits: dict[str, list[tuple[str, ...]]] = {"train": [], "test": []}
    for wnid, members in sorted(classes.items()):
        order = np.random.default_rng([seed, int(wnid[1:])]).permutation(len(members))
        count = 0 if len(members) == 1 else max(1, round(test_ratio * len(members)))
        ordered = sorted(members)
        for rank, at in enumerate(order.tolist()):
            splits["test" if rank < count else "train"].append(ordered[at])
    return splits


def _class_names(root: Path) -> dict[str, str]:
    """Read the names of the classes; of those that are there twice the number stays."""
    readme = next((path for path in (root / "README.txt", root.parent / "README.txt") if path.is_file()), None)
    if readme is None:
        return {}
    lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()
    names = {named[1]: named[2].strip() for line in lines if (named := _NAMED.fullmatch(line.strip()))}
    counts = collections.Counter(names.values())
    return {wnid: name for wnid, name in names.items() if counts[name] == 1}
