"""The contract of a scorer."""

from typing import Protocol, runtime_checkable

from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.masking.maps import ScoreMaps
from exmem.tokens.tensors import TensorBatch

__all__ = ["FixedScorer", "Scorer"]


class Scorer(Protocol):
    """Gives each token an importance; a plain function may do it."""

    def __call__(self, model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        """Score a batch, by modality of the model; SchemaError if the model lacks a layer.

        Parameters
        ----------
        model : Backbone
            Whose attention scores; scorers that need none take the shapes from it.
        batch : TensorBatch
            Tokens to score, with their labels.
        hidden : Hidden, optional
            What the trunk made of the same batch; the trunk is run again only where a scorer looks into it.
        """


@runtime_checkable
class FixedScorer(Protocol):
    """A scorer that can tell whether tuning changes its image scores; if not, the pass of the trunk scores too."""

    def is_fixed(self, model: Backbone) -> bool:
        """Say whether image scores come from the trunk of a model alone.

        Parameters
        ----------
        model : Backbone
            The model that would be tuned above its trunk.
        """
