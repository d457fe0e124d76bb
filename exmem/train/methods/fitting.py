"""A head of a run: what it carries lies in the run's folder, and counts."""

import numpy as np
import torch

from exmem.registry import Part
from exmem.train.folder import RunFolder
from exmem.train.methods import HEADS, Head, Labelled

__all__ = ["fit_head", "head_bytes"]


def fit_head(folder: RunFolder, phase: int, part: Part, new: Labelled, stored: Labelled) -> Head:
    """Fit the head of a phase, which goes on from what the head of the phase before carried."""
    head: Head = HEADS.make(part.name, **part.kwargs)
    if head.keeps_sums and phase:
        head.load({name: tensor.numpy() for name, tensor in folder.head(phase - 1).items()})
    head.fit(new, stored)
    if head.keeps_sums:
        folder.save_head(phase, {name: torch.from_numpy(array) for name, array in head.state().items()})
    return head


def head_bytes(part: Part, *, width: int, classes: int) -> int:
    """Return what a head carries between phases once it knows so many classes, by features of a width."""
    if part.name == "linear" or not HEADS[part.name].keeps_sums:
        return 0
    head: Head = HEADS.make(part.name, **part.kwargs)
    features = np.random.default_rng(0).standard_normal((2 * classes, width), np.float32)
    new = Labelled(features, np.arange(2 * classes) % classes)
    head.fit(new, Labelled(features[:0], new.labels[:0]))
    return head.kept_bytes
