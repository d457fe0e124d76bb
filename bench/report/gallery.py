"""The same pictures through every recipe, as they come out of a memory at replay, with their bytes."""

import tempfile
from pathlib import Path

import numpy as np
from exmem.report.view.pictures import draw_placed, place_tokens
from exmem.train.forms import Replayed
from exmem.train.making import make_recipe
from matplotlib.figure import Figure

from bench.report.rows import PROBE, Row
from exmem import ExemplarMemory
from exmem.backbones import Backbone
from exmem.recipes import Recipe
from exmem.tokens import PaddedTokens
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText

_PICTURES = 6


def draw_gallery(backbone: Backbone, data: ImageText, path: Path) -> None:
    """Draw one line a recipe that stores pictures; rows that choose exemplars otherwise make the same pictures."""
    firsts = [int(np.flatnonzero(data.labels == label)[0]) for label in np.unique(data.labels)[:_PICTURES]]
    rows = np.array(firsts, np.int64)
    shown: list[tuple[Row, Recipe]] = []
    for row in PROBE:
        recipe = make_recipe(row.config(), backbone)
        if recipe is not None and "selection" not in row.group and row.options.get("recipe") != "text":
            shown.append((row, recipe))
    figure = Figure(figsize=(1.5 * (_PICTURES + 1) + 3, 1.6 * (len(shown) + 1)))
    axes = figure.subplots(len(shown) + 1, _PICTURES + 1, width_ratios=[2.2, *[1] * _PICTURES])
    for axis in axes.flat:
        axis.axis("off")
    axes[0, 0].text(0, 0.5, "the pictures themselves", va="center", fontsize=9)
    images = data.images(rows, backbone.picture_size)
    for axis, image in zip(axes[0, 1:], images, strict=True):
        axis.imshow(image)
    for line, (row, recipe) in zip(axes[1:], shown, strict=True):
        line[0].text(0, 0.5, row.key.replace(" / ", "\n"), va="center", fontsize=9, wrap=True)
        pictures, sizes = _through(backbone, recipe, data, rows, row.config().fill)
        for axis, picture, size in zip(line[1:], pictures, sizes, strict=True):
            axis.imshow(picture)
            axis.set_title(f"{size:,} B", fontsize=7, pad=2)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.995, bottom=0.005, hspace=0.22, wspace=0.03)
    figure.savefig(path, dpi=80)


def _through(
    backbone: Backbone, recipe: Recipe, data: ImageText, rows: np.ndarray, fill: str
) -> tuple[list[np.ndarray], list[int]]:
    texts = [data.texts[row] for row in rows.tolist()]
    made = recipe.make(data.images(rows, backbone.picture_size), texts, data.labels[rows], np.zeros(len(rows)))
    spec = backbone.token_specs()["image"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "memory"
        with ExemplarMemory.create(place, schema=recipe.schema(), max_bytes="64MB", durable=False) as memory:
            memory.add(made)
            memory.commit()
            replayed = Replayed(backbone, recipe, fill=fill)
            stored = TensorBatch.from_numpy(memory.read(memory.slots))
            replayed.know(lambda: [stored])
            image = replayed(stored).tokens["image"]
            sizes = memory.sizes.tolist()
    known = image.valid if image.unknown is None else image.valid & ~image.unknown
    tokens = PaddedTokens(image.values.numpy(), image.positions.numpy(), image.valid.numpy())
    pictures = []
    for index in range(len(rows)):
        own = tokens.row(index)
        there = known[index].numpy()[: len(own.positions)]
        kept = type(own)(own.positions[there], own.values[there])
        pictures.append(draw_placed(place_tokens(kept, spec, backbone.grid)))
    return pictures, sizes
