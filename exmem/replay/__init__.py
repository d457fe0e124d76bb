"""Replay: drawing exemplars and handing them to a model."""

from exmem.replay.dataset import ReplayDataset, ReplayLoader, replay_loader
from exmem.replay.fills import FILLS, fill_drop, fill_zero, get_fill
from exmem.replay.samplers import SAMPLERS, BalancedSampler, UniformSampler, get_sampler

__all__ = [
    "FILLS",
    "SAMPLERS",
    "BalancedSampler",
    "ReplayDataset",
    "ReplayLoader",
    "UniformSampler",
    "fill_drop",
    "fill_zero",
    "get_fill",
    "get_sampler",
    "replay_loader",
]
