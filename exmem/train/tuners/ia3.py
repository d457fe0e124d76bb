"""IA3 (Liu et al. 2022, arXiv:2205.05638): keys, values and the inner activations of the MLP, scaled."""

from peft import IA3Config
from torch import nn
from typing_extensions import override

from exmem.backbones import Backbone
from exmem.backbones.blocks import projection
from exmem.train.tuners.base import Tuner, adapted, names_of

__all__ = ["Ia3"]


class Ia3(Tuner):
    """Scales of keys, values and what goes into the last layer of the MLP of the tuned blocks."""

    @override
    def __call__(self, backbone: Backbone) -> frozenset[str]:
        blocks = backbone.trainable_blocks()
        attention = [projection(block, kind) for block in blocks for kind in ("key", "value")]
        # The last linear layer of a block is that of its MLP, in all families of transformers.
        feedforward = [[layer for layer in block.modules() if isinstance(layer, nn.Linear)][-1] for block in blocks]
        inner = names_of(backbone, feedforward, nn.Linear)
        targets = names_of(backbone, attention, nn.Linear) + inner
        return adapted(backbone, IA3Config(target_modules=targets, feedforward_modules=inner), "ia3_")
