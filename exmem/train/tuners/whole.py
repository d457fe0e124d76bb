"""All weights of the tuned blocks, or none."""

from typing_extensions import override

from exmem.backbones import Backbone
from exmem.train.tuners.base import Tuner

__all__ = ["Frozen", "Full"]


class Full(Tuner):
    """All weights of the tuned blocks, and the final norm."""

    @override
    def __call__(self, backbone: Backbone) -> frozenset[str]:
        moved = {
            id(parameter)
            for module in (*backbone.trainable_blocks(), *backbone.final_norms())
            for parameter in module.parameters()
        }
        return frozenset(name for name, parameter in backbone.named_parameters() if id(parameter) in moved)


class Frozen(Tuner):
    """No weight of the blocks; what a family trains beside them (a projection of texts) still moves, and the head."""

    @override
    def __call__(self, backbone: Backbone) -> frozenset[str]:
        return frozenset()
