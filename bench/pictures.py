"""The pictures of the README: what a byte buys, and what is kept of an image at each level.

python -m bench.pictures          docs/images/frontier.png of bench/results/demo/table.csv, and docs/images/kept.png
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray
from PIL import Image

from exmem.backbones import Backbone, load_backbone
from exmem.recipes import BoundRecipe
from exmem.report.view.images import Placed, draw_placed, place_tokens
from exmem.store import format_bytes
from exmem.tokens import Exemplar, TokenSpec
from tests.exemplars import crop, photographs

__all__ = ["draw_frontier", "draw_kept"]

ROOT = Path(__file__).parent.parent
TABLE, IMAGES = ROOT / "bench" / "results" / "demo" / "table.csv", ROOT / "docs" / "images"
CURVES = {  # title -> recipes, of which the best at each budget counts; colour and line
    "features, 1 to 8 bits a value": (("features_1_bit", "features_2_bits", "features_8_bits"), "#d55e00", "-."),
    "whole JPEG, or at half the side": (("jpeg", "jpeg_q10", "half_jpeg", "half_q10"), "#0072b2", "-"),
    "4 to 16 hidden tokens": (("hidden_4", "hidden_8", "hidden_16"), "#009e73", "--"),
    "a third of the patches, JPEG": (("masked_mean",), "#cc79a7", "-"),
    "raw pixels": (("raw",), "#1c2330", "-"),
}
RECIPES = {
    "raw": "raw",
    "jpeg": "jpeg",
    "half_jpeg": "half_jpeg",
    "masked": "masked: the patches\nthat are attended to",
    "hidden": "hidden: their 8 best,\nas states of the trunk",
    "features": "features, 2 bits",
}
SIDE, CROPS, TEXT = 224, 64, "a photograph"


def _means(table: pd.DataFrame, recipe: str) -> pd.DataFrame:
    """Mean bytes and accuracy over seeds at each budget, where every seed had room."""
    rows = table[table["recipe"] == recipe].groupby("budget_bytes")[["bytes", "last"]]
    return rows.mean().where(rows.count() == table["seed"].nunique()).dropna()


def draw_frontier(path: Path) -> None:
    """Draw accuracy over bytes, image alone, of the frozen probe."""
    table = pd.read_csv(TABLE)
    table = table[(table["kind"] == "probe") & (table["data"] == "image") & table["last"].notna()]
    usual = table[table["method"] == "usual"]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axis = figure.subplots()
    for title, (recipes, colour, line) in CURVES.items():
        every = pd.concat(_means(usual, recipe) for recipe in recipes)
        best = every.sort_values("last").groupby(level=0).last().sort_values("bytes")
        best = best[best["last"].cummax() == best["last"]]
        axis.plot(best["bytes"], best["last"], line, color=colour, marker="o", label=title)
    whole = _means(usual, "joint").iloc[0]
    axis.axhline(whole["last"], color="grey", lw=1, ls=":")
    axis.annotate(
        f"every example raw: {format_bytes(int(whole['bytes']))}", (21e3, whole["last"] + 0.004), color="grey"
    )
    ridge = _means(table[table["method"] == "ridge"], "none").iloc[0]
    axis.plot(ridge["bytes"], ridge["last"], "*", color="#e69f00", ms=12, label="no exemplar: ridge regression's sums")
    axis.set(
        xscale="log", xlabel="bytes on disk, everything counted", ylabel="accuracy over 22 classes", ylim=(0, 0.38)
    )
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(int(value))))
    axis.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    figure.legend(frameon=False, loc="outside right center")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _square(photo: NDArray[np.uint8], left: int) -> NDArray[np.uint8]:
    height = len(photo)
    square = Image.fromarray(photo[:, left : left + height])
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _stored(backbone: Backbone, name: str, images: NDArray[np.uint8]) -> list[tuple[Exemplar, int]]:
    """The first two exemplars as they come back out of a memory, with the bytes of each."""
    bound = BoundRecipe(name, backbone)
    given = bound.make(images, [TEXT] * len(images), [0] * len(images))
    with (
        tempfile.TemporaryDirectory() as folder,
        bound.create_memory(Path(folder) / "m", max_bytes="64MB", samples=given) as memory,
    ):
        memory.add(given[:2])
        memory.commit()
        batch = memory.read(memory.slots)
        return [(batch.exemplar(row), int(memory.sizes[row])) for row in range(2)]


def _drawn(backbone: Backbone, image: NDArray[np.uint8], exemplar: Exemplar) -> NDArray[np.uint8] | None:
    """What is there of an image: its pixels as they are decoded, or the places of hidden tokens; None of features."""
    tokens = exemplar.tokens
    if "hidden" in tokens:
        prefix = backbone.num_prefix or 0
        places = tokens["hidden"].positions[prefix:] - prefix
        keep = np.zeros(backbone.grid[0] * backbone.grid[1], np.bool_)
        keep[places] = True
        side = SIDE // backbone.grid[0]
        return draw_placed(Placed(image, keep.reshape(backbone.grid).repeat(side, 0).repeat(side, 1)))
    if "image" not in tokens:
        return None
    spec = TokenSpec(positions=1, shape=tokens["image"].values.shape[1:])
    if len(tokens["image"]) == 1:
        return draw_placed(place_tokens(tokens["image"], spec, (1, 1)))
    return draw_placed(place_tokens(tokens["image"], spec, backbone.grid))


def draw_kept(path: Path) -> None:
    """Draw two photographs as each recipe keeps them, with their bytes on disk, text and index included."""
    backbone = load_backbone("joint", image_size=SIDE, trainable_blocks=1)
    wholes = [_square(photo, left) for photo, left in zip(photographs(), (0, 106), strict=True)]
    images = np.stack([*wholes, *(crop(seed, SIDE) for seed in range(CROPS))])
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots(2, len(RECIPES))
    for column, (name, title) in enumerate(RECIPES.items()):
        for row, (exemplar, size) in enumerate(_stored(backbone, name, images)):
            axis, drawn = axes[row, column], _drawn(backbone, wholes[row], exemplar)
            if row == 0:
                axis.set_title(title, fontsize="medium")
            if drawn is None:
                axis.text(0.5, 0.5, "a vector of\n1,152 values", ha="center", va="center", transform=axis.transAxes)
            else:
                axis.imshow(drawn)
            axis.set(xticks=[], yticks=[], xlabel=f"{size:,} bytes", aspect=1)
            axis.spines[:].set_visible(drawn is None)
    figure.savefig(path, dpi=90)


def main() -> None:
    for draw, name in ((draw_frontier, "frontier.png"), (draw_kept, "kept.png")):
        draw(IMAGES / name)
        print(IMAGES.relative_to(ROOT) / name)


if __name__ == "__main__":
    main()
