"""Phases of small images and a model that learns them, for the tests of loops that are not exmem's."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from exmem.recipes import BoundRecipe, PlainImages

SIDE, EACH = 32, 16
_COLOURS = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3))
BOUND = BoundRecipe("jpeg", PlainImages(size=SIDE, patch=8))


def raw_examples(classes, *, each=EACH, seed=0):
    """Raw rows, with images of PIL: a coarse pattern of each class, with noise."""
    rng = np.random.default_rng([seed, *classes])
    rows = []
    for label in classes:
        for _ in range(each):
            tiles = np.clip(_COLOURS[label] + rng.normal(0, 40, (4, 4, 3)), 0, 255).astype(np.uint8)
            rows.append({"image": Image.fromarray(tiles.repeat(8, 0).repeat(8, 1)), "label": label})
    return rows


def as_input(row):
    """What a model takes of a raw row."""
    return {
        "pixel_values": torch.from_numpy(np.array(row["image"])).permute(2, 0, 1) / 255,
        "labels": row["label"],
    }


class Linear(nn.Module):
    """The smallest model that forgets; it gives what Trainer wants of one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(SIDE * SIDE * 3, len(_COLOURS))

    def forward(self, pixel_values, labels=None):
        logits = self.head(pixel_values.flatten(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def accuracy(model, classes):
    """Share of fresh examples of some classes that are told."""
    inputs = [as_input(row) for row in raw_examples(classes, seed=99)]
    with torch.no_grad():
        logits = model(torch.stack([one["pixel_values"] for one in inputs]))["logits"]
    return float((logits.argmax(1) == torch.tensor([one["labels"] for one in inputs])).float().mean())


def flat(inputs):
    """Labels of a batch, each with a number that tells its example."""
    marks = inputs.get("pixel_values", inputs.get("input_ids")).flatten(1).double().sum(1)
    return [(label, round(mark, 2)) for label, mark in zip(inputs["labels"].tolist(), marks.tolist(), strict=True)]


def held(memory):
    """All that tells whether a memory was changed."""
    return memory.slots.tolist(), memory.labels.tolist(), dict(memory.attrs), memory.used_bytes, memory.next_slot
