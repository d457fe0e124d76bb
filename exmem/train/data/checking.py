"""What a folder of data holds and what is broken in it, with every image decoded."""

import collections
import os
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from exmem.errors import DataError
from exmem.train.data.images import ImageFacts, inspect_image
from exmem.train.data.reading import Columns, Example, Reading, read_folder

__all__ = ["TREATMENTS", "check_folder"]

Advance = Callable[[int, int], None]

TREATMENTS = {
    "turned": "turned as their EXIF orientation says",
    "transparent": "transparent: shown on white",
    "sixteen_bits": "of 16 bits: scaled to 8",
    "cmyk": "in CMYK: converted to RGB",
    "several_frames": "animated or of several pages: the first is taken",
}


def check_folder(
    folder: str | os.PathLike[str], columns: Columns, *, max_words: int | None = None, advance: Advance | None = None
) -> dict[str, Any]:
    """Return what a folder holds as plain values, broken or not; DataError only where there is nothing to read.

    `advance` is told how many images of how many were decoded.
    """
    reading = read_folder(folder, columns)
    examples = [*reading.train.examples, *reading.test.examples]
    paths = {example.parts: reading.root.joinpath(*example.parts) for example in examples}
    facts, broken = _inspect(paths.values(), advance)
    sizes = {parts: path.stat().st_size for parts, path in paths.items() if path.exists()}
    counts = {name: [0, 0] for name in reading.class_names}
    for column, split in enumerate((reading.train, reading.test)):
        for example in split.examples:
            counts.setdefault(example.label, [0, 0])[column] += 1
    return {
        "folder": str(reading.root),
        "bytes": sum(sizes.values()),
        "splits": {
            role: {
                "folder": str(split.folder),
                "examples": len(split.examples),
                "images": len(held := {example.parts for example in split.examples}),
                "bytes": sum(sizes.get(parts, 0) for parts in held),
            }
            for role, split in (("train", reading.train), ("test", reading.test))
        },
        "classes": {name: {"train": train, "test": test} for name, (train, test) in counts.items()},
        "single_example_classes": [name for name, (train, _) in counts.items() if train == 1],
        "untested_classes": [name for name, (_, test) in counts.items() if test == 0],
        "texts": _texts(reading, examples, max_words),
        "images": _images(facts),
        "problems": [*reading.problems, *broken],
        "warnings": reading.warnings,
        "notes": reading.notes,
    }


def _inspect(paths: Iterable[Path], advance: Advance | None) -> tuple[list[ImageFacts], list[str]]:
    def inspect(path: Path) -> ImageFacts | str:
        try:
            return inspect_image(path)
        except DataError as error:
            return str(error)

    wanted, results = list(paths), []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(inspect, wanted):
            results.append(result)
            if advance is not None:
                advance(len(results), len(wanted))
    facts = [result for result in results if isinstance(result, ImageFacts)]
    return facts, [result for result in results if isinstance(result, str)]


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
