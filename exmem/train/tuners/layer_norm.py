"""Tuning of layer norms alone (Zhao et al. 2023, arXiv:2312.11420)."""

import warnings

from peft import LNTuningConfig
from torch import nn
from typing_extensions import override

from exmem.backbones import Backbone
from exmem.train.tuners.base import Tuner, adapted, names_of

__all__ = ["LayerNorms"]


class LayerNorms(Tuner):
    """The norms of the tuned blocks, and the final one."""

    @override
    def __call__(self, backbone: Backbone) -> frozenset[str]:
        modules = [*backbone.trainable_blocks(), *backbone.final_norms()]
        targets = names_of(backbone, modules, nn.LayerNorm)
        with warnings.catch_warnings():  # peft looks for the widths of norms, which it does not use
            warnings.filterwarnings("ignore", "Unsupported layer type .*LayerNorm", UserWarning)
            return adapted(backbone, LNTuningConfig(target_modules=targets), "ln_tuning_")
