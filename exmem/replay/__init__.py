"""Replay: drawing exemplars and handing them to a model.

What is stored is restored, augmented and filled in one place (`Pipeline`), for the loader and for the trainer alike.
Each pass of a sampler follows from the seed and its number, so resuming, ranks and workers need no counter.
"""

from exmem.replay.batch import ReplayBatch
from exmem.replay.dataset import ReplayDataset
from exmem.replay.loader import ReplayLoader, replay_loader
from exmem.replay.pipeline import Pipeline
from exmem.replay.samplers import SAMPLERS, Sampler

__all__ = [
    "SAMPLERS",
    "Pipeline",
    "ReplayBatch",
    "ReplayDataset",
    "ReplayLoader",
    "Sampler",
    "replay_loader",
]
