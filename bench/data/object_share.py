"""The demo's stickers at one size: the object covers 5, 15 or 50 % of every picture.

    python -m bench.data.object_share OUT --share 0.05

12 classes of emoji on crops of photographs, 224 px. Drawings, texts and backgrounds are the same for every share; only
drawings that can cover half of a picture are used. A folder that is there is left as it is.
"""

import argparse
import bisect
import dataclasses
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from exmem.backbones.packaged.fetching import build_once
from exmem.cli.demo.stickers import StickersConfig, notice
from exmem.cli.demo.stickers.build import Place, draw_stickers, fetch_artwork
from exmem.cli.demo.stickers.compose import crop_photograph, paste_sticker, sample_photographs, sticker_mask

__all__ = ["CONFIG", "MOST", "build_object_share", "covered", "placed_at"]

CONFIG = StickersConfig(size=224, cap=80, test_ratio=0.3, num_classes=12, max_train=40, max_test=25)
MOST = 0.5


def build_object_share(folder: Path, share: float, *, seed: int = 0) -> Path:
    """Build the data set, unless the folder is there."""

    def build(temporary: Path) -> None:
        concepts, artwork = fetch_artwork(CONFIG.size, progress=lambda line: print(line, file=sys.stderr))
        shares: list[float] = []
        config = dataclasses.replace(CONFIG, seed=seed)
        draw_stickers(temporary, config, concepts, artwork, sample_photographs(), place=placed_at(share, shares))
        info = json.loads((temporary / "info.json").read_text(encoding="utf-8"))
        info |= {"share": share, "covered": [min(shares), float(np.mean(shares)), max(shares)]}
        (temporary / "info.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")

    return build_once(folder, build)


def placed_at(share: float, shares: list[float]) -> Place:
    """Return what pastes a sticker that covers `share` of a photograph, and notes in `shares` what it does cover."""

    def place(
        artwork: Image.Image, size: int, rng: random.Random, photographs: Sequence[Image.Image] | None
    ) -> Image.Image | None:
        if covered(artwork, size, size) < MOST:
            return None
        sides = range(1, size + 1)
        side = sides[bisect.bisect_left(sides, share, key=lambda side: covered(artwork, side, size))]
        shares.append(covered(artwork, side, size))
        return paste_sticker(crop_photograph(size, rng, photographs or ()), artwork, side, rng)

    return place


def covered(artwork: Image.Image, side: int, size: int) -> float:
    """Return the part of a picture of `size` that a sticker covers, in its middle, when artwork is scaled to `side`."""
    corner = (size - side) // 2
    placed = artwork.resize((side, side), Image.Resampling.LANCZOS)
    return float(np.mean(np.asarray(sticker_mask(placed, (corner, corner), size)) > 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.15, help="above 0, to 0.5")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if not 0 < asked.share <= MOST:
        parser.error(f"--share must be above 0 and at most {MOST}, got {asked.share}")
    folder = build_object_share(asked.out, asked.share, seed=asked.seed)
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    for label in info["train"]:
        print(f"{label}: {info['train'][label]} train, {info['test'][label]} test")
    low, mean, high = info["covered"]
    print(f"the object covers {mean:.1%} of a picture ({low:.1%} to {high:.1%})")
    print(notice(folder))
    print(folder)


if __name__ == "__main__":
    main()
