"""Masking: scorers give tokens an importance, keep rules turn it into what is stored."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError
from exmem.masking.base import ScorableModel, ScoreMaps, Scorer
from exmem.masking.cls_attention import ClsAttention
from exmem.masking.keep import mean_threshold, top_k
from exmem.masking.random import RandomScores
from exmem.masking.text import keep_all_text, keep_text_of_lost_patches

__all__ = [
    "KEEP_RULES",
    "SCORERS",
    "TEXT_RULES",
    "ClsAttention",
    "KeepRule",
    "RandomScores",
    "ScorableModel",
    "ScoreMaps",
    "Scorer",
    "get_keep_rule",
    "get_scorer",
    "get_text_rule",
    "keep_all_text",
    "keep_text_of_lost_patches",
    "mean_threshold",
    "top_k",
]

KeepRule = Callable[..., NDArray[np.bool_]]

SCORERS: dict[str, Callable[..., Scorer]] = {"cls_attention": ClsAttention, "random": RandomScores}
KEEP_RULES: dict[str, KeepRule] = {"mean_threshold": mean_threshold, "top_k": top_k}
TEXT_RULES: dict[str, KeepRule] = {"all": keep_all_text, "lost_patches": keep_text_of_lost_patches}


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


def get_text_rule(name: str) -> KeepRule:
    """Find a text rule by name.

    Parameters
    ----------
    name : str
        A key of `TEXT_RULES`.

    Returns
    -------
    callable
        Takes score maps, the image's `keep` and the special tokens, returns the text's `keep`.
    """
    rule: KeepRule = _look_up("text rule", name, TEXT_RULES)
    return rule


def _look_up(kind: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise SchemaError(f"unknown {kind} {name!r}; choose one of {sorted(table)}")
    return table[name]
