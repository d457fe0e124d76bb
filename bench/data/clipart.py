"""Public-domain clip art of the Open Clip Art Library as data: folders are classes, titles and keywords texts.

    python -m bench.data.clipart OUT

Takes Debian's packages openclipart-png and openclipart-svg. A folder that is there is left as it is.
"""

import argparse
import collections
import hashlib
import json
import random
import re
import struct
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.clipart_texts import class_words, describe, read_note, without_collections
from bench.data.debian import Package, fetch_package, unpack
from exmem.backbones.packaged.fetching import build_once
from exmem.train.data.images import MAX_PIXELS, decode_image

__all__ = ["Limits", "build_clipart", "choose_classes", "draw_clipart", "family", "on_white", "split"]

_PACKAGES = (
    Package("openclipart-png", "1:0.18+dfsg-19", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"),
    Package("openclipart-svg", "1:0.18+dfsg-19", "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"),
)
_NOT_CLASSES = {
    "buttons",
    "computer/buttons",
    "computer/icons",  # whole themes, of everything
    "logos",
    "shapes/stars",  # 1,378 that a program drew
    "special",  # patterns and gradients
    "transportation/aiga-symbols",  # once more in signs_and_symbols/map_symbols
    "unsorted",
}
_COLOURS = frozenset(
    ["black", "blue", "brown", "bw", "gold", "green", "grey", "orange", "pink", "purple", "red", "white"]
) | {
    "cyan",
    "gray",
    "magenta",
    "seagreen",
    "silver",
    "violet",
    "yellow",
}
_TEST_RATIO = 0.25
_LEAST_SIDE = 0.125  # of a picture, that something must be drawn on


class Limits(NamedTuple):
    """The side in pixels, the fewest pictures of a class, the most of them in each split, and the seed of the split."""

    size: int = 224
    min_images: int = 40
    max_train: int = 60
    max_test: int = 20
    seed: int = 0


def build_clipart(folder: Path, limits: Limits) -> Path:
    """Build the data set, unless the folder is there."""

    def build(temporary: Path) -> None:
        with tempfile.TemporaryDirectory() as unpacked:
            for package in _PACKAGES:
                unpack(fetch_package(package, progress=_tell), Path(unpacked))
            _tell("drawing the pictures")
            draw_clipart(temporary, Path(unpacked) / "usr/share/openclipart", limits)

    return build_once(folder, build)


class _Picture(NamedTuple):
    key: str
    pixels: NDArray[np.uint8]
    text: str
    from_name: bool


def draw_clipart(folder: Path, library: Path, limits: Limits) -> None:
    """Draw the pictures of a library, a folder with `png` and `svg` in it, into an empty folder."""
    notes = without_collections({key: read_note(path.read_bytes()) for key, path in _files(library / "svg")})
    digests = {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in _files(library / "png")}
    seen: set[bytes] = set()
    dropped: collections.Counter[str] = collections.Counter()
    chosen: dict[str, dict[str, list[_Picture]]] = {"train": {}, "test": {}}
    for label, keys in choose_classes(digests, min_images=limits.min_images).items():
        barred = class_words(label, {_inside(key, label): notes[key] for key in keys})
        pictures = {}
        for key in keys:
            pixels = on_white(library / "png" / f"{key}.png", limits.size)
            fault = "shows a file that is missing" if notes[key].incomplete else _fault(pixels, seen)
            if pixels is None or fault:
                dropped[fault] += 1
                continue
            seen.add(pixels.tobytes())
            text, from_name = describe(notes[key], PurePosixPath(key).name, barred)
            pictures[key] = _Picture(key, pixels, text, from_name)
        for name, members in split(pictures, label, limits).items():
            chosen[name][label] = [pictures[key] for key in members]
    _write(folder, chosen, dropped)


def choose_classes(digests: Mapping[str, str], *, min_images: int) -> dict[str, list[str]]:
    """Choose folders as classes, by label, from the digests of pictures by path (`animals/birds/hen`).

    A folder of the second level, with all below it, is a class if it holds enough different pictures; one of the first
    level is if none in it is. A picture that lies in two classes is in neither, and what becomes too small goes.
    """
    members: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for key, digest in sorted(digests.items()):
        parents = PurePosixPath(key).parts[:-1][:2]
        folders = ["/".join(parents[:depth]) for depth in range(1, len(parents) + 1)]
        if not _NOT_CLASSES.intersection(folders):
            for folder in folders:
                members[folder].setdefault(digest, key)
    large = [folder for folder in members if len(members[folder]) >= min_images]
    parts = {folder.partition("/")[0] for folder in large if "/" in folder}
    classes = [folder for folder in large if folder not in parts]
    held = collections.Counter(digest for folder in classes for digest in members[folder])
    left = {
        folder.replace("/", "-"): sorted(key for digest, key in members[folder].items() if held[digest] == 1)
        for folder in sorted(classes)
    }
    return {label: keys for label, keys in left.items() if len(keys) >= min_images}


def split(keys: Iterable[str], label: str, limits: Limits) -> dict[str, list[str]]:
    """Hold out a quarter of the pictures of a class, or `max_test`; what differs in colour only stays together."""
    families: dict[str, list[str]] = collections.defaultdict(list)
    for key in sorted(keys):
        families[family(PurePosixPath(key).name)].append(key)
    order = sorted(families)
    random.Random(f"{limits.seed}/{label}").shuffle(order)
    wanted = min(limits.max_test, round(_TEST_RATIO * sum(map(len, families.values()))))
    test: list[str] = []
    train: list[str] = []
    for name in order:
        (test if len(test) + len(families[name]) <= wanted else train).extend(families[name])
    return {"train": sorted(train[: limits.max_train]), "test": sorted(test)}


def family(name: str) -> str:
    """Return a file's name without colours, and without the 1 of signs that come twice (`aiga_bus1`, `aiga_bus_`).

    >>> family("bus1_bw_jarno_01"), family("bus1_jarno_01"), family("aiga_bus1")
    ('bus1 jarno 01', 'bus1 jarno 01', 'aiga bus')
    """
    tokens = [token for token in re.split(r"[\W_]+", name.lower()) if token and token not in _COLOURS]
    return re.sub(r"(?<=[^\W\d])1$", "", " ".join(tokens))


def on_white(path: Path, size: int) -> NDArray[np.uint8] | None:
    """Return a PNG file as (size, size, 3) RGB: its longer side scaled to `size`, in the middle of a white square.

    None if it has more than `MAX_PIXELS`.
    """
    with path.open("rb") as file:
        width, height = struct.unpack(">16xII", file.read(24))  # the PNG header; Pillow warns of large ones
    if width * height > MAX_PIXELS:
        return None
    scale = size / max(width, height)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    square = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = decode_image(path, (height, width))
    return square


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [(str(path.relative_to(folder).with_suffix("")), path) for path in sorted(folder.rglob("*.*g"))]


def _inside(key: str, label: str) -> str:
    """Return a picture's name below its class."""
    return key.removeprefix(label.replace("-", "/")).strip("/").replace("/", "-")


def _fault(pixels: NDArray[np.uint8] | None, seen: Collection[bytes]) -> str:
    if pixels is None:
        return "too large to decode"
    drawn = [np.ptp(where) + 1 for where in np.nonzero(pixels.min(axis=2) < 255) if len(where)]
    if max(drawn, default=0) < len(pixels) * _LEAST_SIDE:
        return "hardly anything on white"
    return "drawn the same as another" if pixels.tobytes() in seen else ""


def _write(folder: Path, chosen: Mapping[str, Mapping[str, list[_Picture]]], dropped: Mapping[str, int]) -> None:
    info: dict[str, object] = {}
    from_names = without = 0
    for name, classes in chosen.items():
        lines = []
        for label, pictures in classes.items():
            (folder / name / label).mkdir(parents=True)
            for picture in pictures:
                file_name = f"{label}/{_inside(picture.key, label)}.png"
                Image.fromarray(picture.pixels).save(folder / name / file_name, optimize=True)
                row = {"file_name": file_name, "text": picture.text, "label": label, "source": f"{picture.key}.png"}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
                from_names += picture.from_name and picture.text != ""
                without += not picture.text
        (folder / name / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
        info[name] = {label: len(pictures) for label, pictures in classes.items()}
    info |= {"from_file_names": from_names, "without_text": without, "dropped": dict(sorted(dropped.items()))}
    (folder / "info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def summary(folder: Path) -> str:
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    train, test = info["train"], info["test"]
    lines = [f"{label}: {train[label]} train, {test[label]} test" for label in train]
    lines.append(f"{len(train)} classes, {sum(train.values())} pictures to train, {sum(test.values())} to test")
    lines.append(f"{info['from_file_names']} texts are words of the file's name, {info['without_text']} are empty")
    dropped = ", ".join(f"{count} {why}" for why, count in info["dropped"].items())
    return "\n".join([*lines, f"dropped: {dropped or 'none'}", str(folder)])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for name, value in Limits._field_defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    asked = vars(parser.parse_args())
    print(summary(build_clipart(asked.pop("out"), Limits(**asked))))


if __name__ == "__main__":
    main()
