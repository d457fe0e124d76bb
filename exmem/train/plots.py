"""Pictures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exmem.backbones import Backbone, unpatchify
from exmem.data import ImageText
from exmem.replay import ReplayDataset, fill_zero
from exmem.train.recipes import Recipe

__all__ = ["draw_accuracy", "draw_exemplars"]


def draw_accuracy(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the accuracy after each phase.

    Parameters
    ----------
    runs : mapping of str to sequence of mapping
        Name of a run -> its metrics.
    path : Path
        The PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (key, title) in zip(axes, [("linear", "Linear head"), ("ncm", "Nearest class mean")], strict=True):
        for name, entries in runs.items():
            seen = np.cumsum([len(entry["classes"]) for entry in entries])
            axis.plot(seen, [100 * entry[key]["all"] for entry in entries], marker="o", label=name)
        axis.set(title=title, xlabel="classes seen")
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="accuracy over all classes seen, %", ylim=(0, 100))
    axes[1].legend()
    figure.savefig(path, dpi=120)


def draw_exemplars(
    backbone: Backbone, recipe: Recipe, memory: Path, *, rows_of: Mapping[int, int], data: ImageText, path: Path
) -> None:
    """Draw originals beside what was stored of them, and which words were kept.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    recipe : Recipe
        How exemplars were made.
    memory : Path
        Folder of the memory.
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
    slots = held.slots[np.sort(firsts)][:12]
    batch = recipe.restore(dataset.__getitems__(slots.tolist()))
    dense = fill_zero(batch.tokens["image"], backbone.grid[0] * backbone.grid[1])
    stored = unpatchify(dense.values.numpy(), backbone.grid)
    figure = Figure(figsize=(12, 2.6 * -(-len(slots) // 3)), layout="constrained")
    axes = np.atleast_2d(figure.subplots(-(-len(slots) // 3), 6))
    for axis in axes.flat:
        axis.axis("off")
    for index, slot in enumerate(slots.tolist()):
        row = rows_of[slot]
        left, right = axes[index // 3, 2 * (index % 3)], axes[index // 3, 2 * (index % 3) + 1]
        left.imshow(data.image(row, backbone.image_size))
        right.imshow(stored[index])
        left.set_title(data.class_names[int(data.labels[row])], fontsize=8)
        words = batch.tokens["text"]
        kept = set(words.positions[index][words.keep[index]].tolist())
        every = backbone.tokenize([data.texts[row]]).row(0)
        names = backbone.tokenizer.convert_ids_to_tokens(every.values.tolist())
        special = backbone.special_ids
        plain = [
            (name, place in kept)
            for place, (name, id_) in enumerate(zip(names, every.values.tolist(), strict=True))
            if id_ not in special
        ]
        chosen = " ".join(name for name, there in plain if there)
        lost = " ".join(name for name, there in plain if not there)
        right.set_title(f"kept: {chosen}\nlost: {lost or '-'}", fontsize=6, wrap=True)
    figure.savefig(path, dpi=120)
