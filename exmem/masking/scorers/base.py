"""The contract of a scorer."""

from typing import Protocol

from exmem.backbones.contract import Backbone
from exmem.masking.maps import ScoreMaps
from exmem.tokens.tensors import TensorBatch

__all__ = ["Scorer"]


class Scorer(Protocol):
    """Gives each token an importance."""

    def __call__(self, model: Backbone, batch: TensorBatch) -> ScoreMaps:
        """Score a batch."""
