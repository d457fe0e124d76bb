"""What data holds and what is broken in it, with every image decoded."""

import collections
import os
import statistics
from collections.abc import Callable
from typing import Any

from exmem.registry import Part
from exmem.train.data.decoding import inspected
from exmem.train.data.images import ImageFacts
from exmem.train.data.layouts import read_data
from exmem.train.data.reading import Columns, Example, Reading

__all__ = ["TREATMENTS", "check_data"]

Advance = Callable[[int, int], None]

TREATMENTS = {
    "turned": "turned as their EXIF orientation says",
    "transparent": "transparent: shown on white",
    "sixteen_bits": "of 16 bits: scaled to 8",
    "cmyk": "in CMYK: converted to RGB",
    "several_frames": "animated or of several pages: the first is taken",
}


def check_data(
    place: str | os.PathLike[str],
    columns: Columns,
    layout: str | Part = "auto",
    *,
    max_words: int | None = None,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Return what data holds as plain values, broken or not; DataError only where there is nothing to read.

    `advance` is told how many images of how many were decoded.
    """
    reading = read_data(place, columns, layout)
    splits = {"train": reading.train, "test": reading.test}
    images = {
        (role, example.image): (split, example)
        for role, split in splits.items()
        for example in split.examples
        if example.image is not None
    }
    results = inspected(images.values(), advance)
    facts = [result for result in results if isinstance(result, ImageFacts)]
    broken = list(dict.fromkeys(result for result in results if isinstance(result, str)))
    examples = [*reading.train.examples, *reading.test.examples]
    counts = {name: [0, 0] for name in reading.class_names}
    for column, split in enumerate(splits.values()):
        for example in split.examples:
            counts.setdefault(example.label, [0, 0])[column] += 1
    sizes = {key: split.image_bytes(example) for key, (split, example) in images.items()}
    return {
        "folder": reading.root,
        "image_bytes": sum(sizes.values()),
        "splits": {
            role: {
                "folder": split.place,
                "examples": len(split.examples),
                "images": sum(key[0] == role for key in sizes),
                "image_bytes": sum(size for key, size in sizes.items() if key[0] == role),
            }
            for role, split in splits.items()
        },
        "classes": {name: {"train": train, "test": test} for name, (train, test) in counts.items()},
        "single_example_classes": [name for name, (train, _) in counts.items() if train == 1],
        "untested_classes": [name for name, (_, test) in counts.items() if test == 0],
        "texts": _texts(reading, examples, max_words),
        "images": _images(facts) | {"column": reading.train.has_images or reading.test.has_images},
        "problems": [*reading.problems, *broken],
        "warnings": reading.warnings,
        "notes": reading.notes,
    }


def _texts(reading: Reading, examples: list[Example], max_words: int | None) -> dict[str, Any]:
    words = [len(example.text.split()) for example in examples]
    return {
        "column": reading.train.has_texts or reading.test.has_texts,
        "empty": sum(not example.text.strip() for example in examples),
        "longest_words": max(words, default=0),
        "longest_image": max(examples, key=lambda example: len(example.text.split())).name if any(words) else None,
        "max_words": max_words,
        "longer": None if max_words is None else sum(count > max_words for count in words),
    }


def _images(facts: list[ImageFacts]) -> dict[str, Any]:
    sides = [side for fact in facts for side in (fact.width, fact.height)]
    spread = {"min": min(sides), "median": statistics.median_low(sides), "max": max(sides)} if sides else None
    counts = {
        "turned": sum(fact.turned for fact in facts),
        "transparent": sum(fact.transparent for fact in facts),
        "sixteen_bits": sum(fact.deep for fact in facts),
        "cmyk": sum(fact.mode == "CMYK" for fact in facts),
        "several_frames": sum(fact.several for fact in facts),
    }
    modes = dict(collections.Counter(fact.mode for fact in facts).most_common())
    return {"decoded": len(facts), "side": spread, "modes": modes} | counts
