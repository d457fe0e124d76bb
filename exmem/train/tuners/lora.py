"""LoRA (Hu et al. 2021, arXiv:2106.09685) and DoRA (Liu et al. 2024, arXiv:2402.09353)."""

import dataclasses

from peft import LoraConfig
from typing_extensions import override

from exmem.backbones import Backbone
from exmem.tokens.checks import whole_number
from exmem.train.tuners.base import Tuner, adapted

__all__ = ["Dora", "Lora"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(Tuner):
    """Low-rank updates of query and value of the tuned blocks, scaled by alpha / rank."""

    rank: int = 16
    alpha: int = 16

    def __post_init__(self) -> None:
        for name in ("rank", "alpha"):
            whole_number(getattr(self, name), name, least=1)

    @override
    def __call__(self, backbone: Backbone) -> frozenset[str]:
        return self._adapted(backbone, magnitude=False)

    def _adapted(self, backbone: Backbone, *, magnitude: bool) -> frozenset[str]:
        targets = backbone.lora_targets()
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets, use_dora=magnitude)
        return adapted(backbone, config, "lora_")


class Dora(Lora):
    """LoRA of the direction of a weight, beside its magnitude."""

    @override
    def __call__(self, backbone: Backbone) -> frozenset[str]:
        return self._adapted(backbone, magnitude=True)
