"""Replay: drawing exemplars and handing them to a model."""

from exmem.replay.dataset import ReplayDataset, ReplayLoader, replay_loader
from exmem.replay.fills import (
    FILLS,
    Fill,
    FillContext,
    class_means,
    fill_class_mean,
    fill_drop,
    fill_mask_token,
    fill_mean,
    fill_thumbnail,
    fill_zero,
)
from exmem.replay.samplers import SAMPLERS, BalancedSampler, UniformSampler

__all__ = [
    "FILLS",
    "SAMPLERS",
    "BalancedSampler",
    "Fill",
    "FillContext",
    "ReplayDataset",
    "ReplayLoader",
    "UniformSampler",
    "class_means",
    "fill_class_mean",
    "fill_drop",
    "fill_mask_token",
    "fill_mean",
    "fill_thumbnail",
    "fill_zero",
    "replay_loader",
]
