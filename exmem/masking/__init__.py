"""Masking: scorers give tokens an importance, keep rules turn it into what is stored."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError
from exmem.masking.attention_rollout import AttentionRollout
from exmem.masking.attention_value_norm import AttentionValueNorm
from exmem.masking.base import ScorableModel, ScoreMaps, Scorer
from exmem.masking.border import BorderShare, border_share
from exmem.masking.centre import CentreScores
from exmem.masking.cim_box import CimBox
from exmem.masking.cls_attention import ClsAttention
from exmem.masking.cls_diverse import ClsDiverse
from exmem.masking.grad_attention import GradAttention, Objective
from exmem.masking.keep import cumulative, fit_bytes, keep_ratio, mean_threshold, top_k
from exmem.masking.random import RandomScores
from exmem.masking.rate import allocate
from exmem.masking.text import keep_all_text, keep_no_text, keep_text_of_lost_patches, keep_text_ratio

__all__ = [
    "KEEP_RULES",
    "SCORERS",
    "TEXT_RULES",
    "AttentionRollout",
    "AttentionValueNorm",
    "BorderShare",
    "CentreScores",
    "CimBox",
    "ClsAttention",
    "ClsDiverse",
    "GradAttention",
    "KeepRule",
    "Objective",
    "RandomScores",
    "ScorableModel",
    "ScoreMaps",
    "Scorer",
    "allocate",
    "border_share",
    "cumulative",
    "fit_bytes",
    "get_keep_rule",
    "get_scorer",
    "get_text_rule",
    "keep_all_text",
    "keep_no_text",
    "keep_ratio",
    "keep_text_of_lost_patches",
    "keep_text_ratio",
    "mean_threshold",
    "top_k",
]

KeepRule = Callable[..., NDArray[np.bool_]]

SCORERS: dict[str, Callable[..., Scorer]] = {
    "attention_rollout": AttentionRollout,
    "attention_value_norm": AttentionValueNorm,
    "centre": CentreScores,
    "cim_box": CimBox,
    "cls_attention": ClsAttention,
    "cls_diverse": ClsDiverse,
    "grad_attention": GradAttention,
    "random": RandomScores,
}
KEEP_RULES: dict[str, KeepRule] = {
    "cumulative": cumulative,
    "fit_bytes": fit_bytes,
    "keep_ratio": keep_ratio,
    "mean_threshold": mean_threshold,
    "top_k": top_k,
}
TEXT_RULES: dict[str, KeepRule] = {
    "all": keep_all_text,
    "keep_ratio": keep_text_ratio,
    "lost_patches": keep_text_of_lost_patches,
    "none": keep_no_text,
}


def get_scorer(name: str, **options: Any) -> Scorer:
    """Make a scorer by name.

    Parameters
    ----------
    name : str
        A key of `SCORERS`.
    **options : object
        Its options.

    Returns
    -------
    Scorer
        The scorer.
    """
    scorer: Scorer = _look_up("scorer", name, SCORERS)(**options)
    return scorer


def get_keep_rule(name: str, **options: Any) -> KeepRule:
    """Find a keep rule by name.

    Parameters
    ----------
    name : str
        A key of `KEEP_RULES`.
    **options : object
        Its options, such as `k`.

    Returns
    -------
    callable
        Takes scores and `valid`, returns `keep`.
    """
    return partial(_look_up("keep rule", name, KEEP_RULES), **options)


def get_text_rule(name: str, **options: Any) -> KeepRule:
    """Find a text rule by name.

    Parameters
    ----------
    name : str
        A key of `TEXT_RULES`.
    **options : object
        Its options, such as `direction`.

    Returns
    -------
    callable
        Takes score maps, the image's `keep` and the special tokens, returns the text's `keep`.
    """
    return partial(_look_up("text rule", name, TEXT_RULES), **options)


def _look_up(kind: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise SchemaError(f"unknown {kind} {name!r}; choose one of {sorted(table)}")
    return table[name]
