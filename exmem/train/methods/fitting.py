"""A head of a run: what it carries lies in the run's folder, and counts."""

import functools

import numpy as np
import torch
from safetensors.torch import save

from exmem.registry import Part
from exmem.train.folder import RunFolder
from exmem.train.methods import HEADS, TRAINED_HEADS, Head, Labelled

__all__ = ["fit_head", "head_bytes"]


def fit_head(folder: RunFolder, phase: int, part: Part, examples: Labelled) -> Head:
    """Fit the head of a phase, which goes on from what the head of the phase before carried."""
    head: Head = HEADS.make(part.name, **part.kwargs)
    if head.keeps_sums and phase:
        head.load({name: tensor.numpy() for name, tensor in folder.head(phase - 1).items()})
    head.fit(examples)
    folder.save_head(phase, _tensors(head))
    return head


@functools.cache
def head_bytes(part: Part, *, width: int, classes: int) -> int:
    """Return the size of the file that a head carries once it knows so many classes, by features of a width."""
    if part.name in TRAINED_HEADS or not HEADS[part.name].keeps_sums:
        return 0
    head: Head = HEADS.make(part.name, **part.kwargs)
    features = np.random.default_rng(0).standard_normal((2 * classes, width), np.float32)
    head.fit(Labelled(features, np.arange(2 * classes) % classes))
    return len(save(_tensors(head)))


def _tensors(head: Head) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in head.state().items()}
