"""Masking: scorers give tokens an importance, keep rules turn it into what is stored.

Rules are plain NumPy and need no torch; scorers (`exmem.masking.scorers`) do.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from exmem.masking.border import BorderShare, border_share
from exmem.masking.keep import cumulative, fit_bytes, keep_ratio, mean_threshold, top_k
from exmem.masking.maps import ScoreMaps
from exmem.masking.rate import allocate
from exmem.masking.text import keep_all_text, keep_no_text, keep_text_of_lost_patches, keep_text_ratio
from exmem.registry import Registry

__all__ = [
    "KEEP_RULES",
    "TEXT_RULES",
    "BorderShare",
    "KeepRule",
    "ScoreMaps",
    "allocate",
    "border_share",
    "cumulative",
    "fit_bytes",
    "keep_all_text",
    "keep_no_text",
    "keep_ratio",
    "keep_text_of_lost_patches",
    "keep_text_ratio",
    "mean_threshold",
    "top_k",
]

KeepRule = Callable[..., NDArray[np.bool_]]
"""Takes scores, shape (B, L), and returns which tokens are kept, shape (B, L), bool."""

KEEP_RULES: Registry[KeepRule] = Registry(
    "keep rule",
    {
        "cumulative": cumulative,
        "fit_bytes": fit_bytes,
        "keep_ratio": keep_ratio,
        "mean_threshold": mean_threshold,
        "top_k": top_k,
    },
)
"""Keep rules of image tokens by name."""
TEXT_RULES: Registry[KeepRule] = Registry(
    "text rule",
    {
        "all": keep_all_text,
        "keep_ratio": keep_text_ratio,
        "lost_patches": keep_text_of_lost_patches,
        "none": keep_no_text,
    },
)
"""Rules by name that say which text tokens are kept."""
