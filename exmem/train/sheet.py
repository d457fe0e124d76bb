"""A sheet of stored exemplars: what was kept of pictures and texts, and in how many bytes."""

import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from exmem.backbones import Backbone, unpatchify
from exmem.data import ImageText
from exmem.recipes import Recipe
from exmem.replay import FillContext, ReplayDataset, fill_zero
from exmem.train.plots import draw_accuracy
from exmem.train.storing import stored_rows
from exmem.train.trainer import Trainer

__all__ = ["draw_exemplars", "draw_run"]

_MOST, _ACROSS, _LINE = 12, 3, 42  # exemplars of a sheet, pairs of a row, letters of a line


def draw_run(trainer: Trainer) -> None:
    """Draw the accuracy of a run and, when it has a memory, a sheet of its exemplars, into its folder.

    Parameters
    ----------
    trainer : Trainer
        What ran.
    """
    folder, entries = trainer.folder, trainer.folder.metrics()
    draw_accuracy({trainer.config.recipe: entries}, folder.picture)
    if trainer.recipe is not None:
        rows_of = stored_rows(folder, len(entries))
        backbone, recipe, data = trainer.backbone, trainer.recipe, trainer.train
        draw_exemplars(backbone, recipe, folder.memory, rows_of=rows_of, data=data, path=folder.sheet)


def draw_exemplars(
    backbone: Backbone, recipe: Recipe, memory: Path, *, rows_of: Mapping[int, int], data: ImageText, path: Path
) -> None:
    """Draw originals beside what is stored of them, with the words that were kept and lost; one exemplar a class.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    recipe : Recipe
        How exemplars were made.
    memory : Path
        Folder of the memory; one without exemplars gives no sheet.
    rows_of : mapping of int to int
        Slot -> row of the training data.
    data : ImageText
        Training data.
    path : Path
        The PNG file.
    """
    from matplotlib.figure import Figure

    dataset = ReplayDataset(memory)
    held = dataset.memory
    _, firsts = np.unique(held.labels, return_index=True)
    firsts = np.sort(firsts)
    if len(firsts) == 0:
        return
    chosen = firsts[np.unique(np.linspace(0, len(firsts) - 1, min(_MOST, len(firsts))).astype(np.int64))]
    slots, sizes = held.slots[chosen].tolist(), held.sizes[chosen].tolist()
    batch = recipe.restore(dataset.__getitems__(slots))
    image, words = batch.tokens["image"], batch.tokens["text"]
    black = fill_zero(batch, FillContext(length=backbone.grid[0] * backbone.grid[1])).tokens["image"]
    stored = unpatchify(black.values.numpy(), backbone.grid)
    lines = -(-len(slots) // _ACROSS)
    height = 3.1 * lines + 0.4
    figure = Figure(figsize=(4.8 * _ACROSS, height))
    gaps = {
        "left": 0.01,
        "right": 0.99,
        "top": 1 - 0.6 / height,
        "bottom": 0.6 / height,
        "hspace": 0.35,
        "wspace": 0.04,
    }
    axes = figure.subplots(lines, 3 * _ACROSS, squeeze=False, width_ratios=[1, 1, 0.05] * _ACROSS, gridspec_kw=gaps)
    about = "Left the picture, right what is stored of it. A word with * lost a piece."
    figure.text(0.01, 1 - 0.15 / height, about, va="top")
    for axis in axes.flat:
        axis.axis("off")
    for index, slot in enumerate(slots):
        row = rows_of[slot]
        left, right = axes[index // _ACROSS, 3 * (index % _ACROSS) :][:2]
        left.imshow(data.image(row, backbone.image_size))
        right.imshow(stored[index])
        left.set_title(data.class_names[int(data.labels[row])], fontsize=9, loc="left")
        right.set_title(f"{sizes[index]:,} bytes, {int(image.keep[index].sum())} patches", fontsize=9, loc="right")
        kept, lost = _words(backbone, data.texts[row], set(words.positions[index][words.keep[index]].tolist()))
        text = textwrap.fill(f"kept: {', '.join(kept) or '-'}", _LINE)
        text += "\n" + textwrap.fill(f"lost: {', '.join(lost) or '-'}", _LINE)
        left.text(0, -0.04, text, transform=left.transAxes, fontsize=8, va="top")
    figure.savefig(path, dpi=120)


def _words(backbone: Backbone, text: str, held: Collection[int]) -> tuple[list[str], list[str]]:
    """Return the words that were kept and those that were lost; one that lost a piece is marked by a star."""
    cut = backbone.tokenizer(text, truncation=True, max_length=backbone.max_text)
    places: dict[int, list[int]] = {}
    for place, word in enumerate(cut.word_ids()):
        if word is not None:  # special tokens belong to no word
            places.setdefault(word, []).append(place)
    kept: list[str] = []
    lost: list[str] = []
    for word, pieces in places.items():
        start, stop = cut.word_to_chars(word)
        there = [piece in held for piece in pieces]
        if any(letter.isalnum() for letter in text[start:stop]):
            (kept if any(there) else lost).append(text[start:stop] + ("" if all(there) or not any(there) else "*"))
    return kept, lost
