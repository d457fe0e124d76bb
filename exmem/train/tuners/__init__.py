"""Tuners: which weights of a backbone move while it learns."""

from exmem.registry import Registry
from exmem.train.tuners.base import Tuner

__all__ = ["TUNERS", "Tuner"]

TUNERS: Registry[Tuner] = Registry(
    "tuner",
    {
        "dora": "exmem.train.tuners.lora:Dora",
        "frozen": "exmem.train.tuners.whole:Frozen",
        "full": "exmem.train.tuners.whole:Full",
        "ia3": "exmem.train.tuners.ia3:Ia3",
        "layer_norm": "exmem.train.tuners.layer_norm:LayerNorms",
        "lora": "exmem.train.tuners.lora:Lora",
        "ssf": "exmem.train.tuners.ssf:Ssf",
    },
)
