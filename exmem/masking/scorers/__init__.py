"""Scorers: which tokens matter, by a backbone's attention, by chance or by place."""

from exmem.masking.scorers.attention_rollout import AttentionRollout
from exmem.masking.scorers.attention_value_norm import AttentionValueNorm
from exmem.masking.scorers.base import FixedScorer, Scorer
from exmem.masking.scorers.centre import CentreScores
from exmem.masking.scorers.cim_box import CimBox
from exmem.masking.scorers.cls_attention import ClsAttention
from exmem.masking.scorers.cls_diverse import ClsDiverse
from exmem.masking.scorers.grad_attention import GradAttention, Objective
from exmem.masking.scorers.random import RandomScores
from exmem.registry import Registry

__all__ = [
    "SCORERS",
    "AttentionRollout",
    "AttentionValueNorm",
    "CentreScores",
    "CimBox",
    "ClsAttention",
    "ClsDiverse",
    "FixedScorer",
    "GradAttention",
    "Objective",
    "RandomScores",
    "Scorer",
]

SCORERS: Registry[Scorer] = Registry(
    "scorer",
    {
        "attention_rollout": AttentionRollout,
        "attention_value_norm": AttentionValueNorm,
        "centre": CentreScores,
        "cim_box": CimBox,
        "cls_attention": ClsAttention,
        "cls_diverse": ClsDiverse,
        "grad_attention": GradAttention,
        "random": RandomScores,
    },
)
"""Scorers by name: how important each token is."""
