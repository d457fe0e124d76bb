"""The same pictures through every recipe, as they come out of a memory at replay, with their bytes."""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bench.report.rows import PROBE, Row
from exmem.backbones import Backbone
from exmem.recipes import BoundRecipe
from exmem.replay import Pipeline
from exmem.report.view.images import draw_placed, place_tokens
from exmem.tokens import PaddedTokens
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText

_IMAGES = 6


def draw_gallery(backbone: Backbone, data: ImageText, path: Path) -> None:
    """Draw one line a recipe that stores images; rows that choose exemplars otherwise make the same images."""
    firsts = [int(np.flatnonzero(data.labels == label)[0]) for label in np.unique(data.labels)[:_IMAGES]]
    rows = np.array(firsts, np.int64)
    shown: list[tuple[Row, BoundRecipe]] = []
    for row in PROBE:
        recipe = row.config().recipe
        if "selection" not in row.group and recipe.image.name != "none":
            shown.append((row, BoundRecipe(recipe, backbone)))
    figure = Figure(figsize=(1.5 * (_IMAGES + 1) + 3, 1.6 * (len(shown) + 1)))
    axes = figure.subplots(len(shown) + 1, _IMAGES + 1, width_ratios=[2.2, *[1] * _IMAGES])
    for axis in axes.flat:
        axis.axis("off")
    axes[0, 0].text(0, 0.5, "the images themselves", va="center", fontsize=9)
    images = data.images(rows, backbone.image_sides)
    for axis, image in zip(axes[0, 1:], images, strict=True):
        axis.imshow(image)
    for line, (row, bound) in zip(axes[1:], shown, strict=True):
        line[0].text(0, 0.5, row.key.replace(" / ", "\n"), va="center", fontsize=9, wrap=True)
        drawn, sizes = _through(bound, data, rows)
        for axis, image, size in zip(line[1:], drawn, sizes, strict=True):
            axis.imshow(image)
            axis.set_title(f"{size:,} B", fontsize=7, pad=2)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.995, bottom=0.005, hspace=0.22, wspace=0.03)
    figure.savefig(path, dpi=80)


def _through(bound: BoundRecipe, data: ImageText, rows: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    backbone, texts = bound.backbone, [data.texts[row] for row in rows.tolist()]
    exemplars = bound.make(data.images(rows, backbone.image_sides), texts, data.labels[rows])
    spec, pipeline = backbone.token_specs()["image"], Pipeline(bound.restore)
    with (
        tempfile.TemporaryDirectory() as folder,
        bound.create_memory(Path(folder) / "memory", max_bytes="64MB", durable=False) as memory,
    ):
        slots = memory.add(exemplars).slots
        memory.commit()
        pipeline.follow(memory)
        image = pipeline(TensorBatch.from_numpy(memory.read(slots))).tokens["image"]
        sizes = memory.sizes.tolist()
    known = image.valid if image.unknown is None else image.valid & ~image.unknown
    tokens = PaddedTokens(image.values.numpy(), image.positions.numpy(), image.valid.numpy())
    drawn = []
    for index in range(len(rows)):
        row = tokens.row(index)
        there = known[index].numpy()[: len(row.positions)]
        kept = type(row)(row.positions[there], row.values[there])
        drawn.append(draw_placed(place_tokens(kept, spec, backbone.grid)))
    return drawn, sizes
