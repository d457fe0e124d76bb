"""The contract of a scorer."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exmem.masking.attention import AttentionTap, SequenceLayout
from exmem.tensors import TensorBatch

__all__ = ["ScorableModel", "ScoreMaps", "Scorer"]


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreMaps:
    """Importance of tokens.

    Parameters
    ----------
    scores : mapping of str to ndarray, shape (B, L), float32
        Score of each position of the dense sequence, by modality; higher is kept, 0 where there is no token.
    valid : mapping of str to ndarray, shape (B, L), bool
        True where there is a token.
    text_to_image : ndarray, shape (B, T, L), float32, or None
        Attention of each text position over the image positions; the text rule needs it.
    """

    scores: Mapping[str, NDArray[np.float32]]
    valid: Mapping[str, NDArray[np.bool_]]
    text_to_image: NDArray[np.float32] | None = None


class ScorableModel(Protocol):
    """What an attention scorer needs of a model."""

    def embed(self, batch: TensorBatch) -> Any:
        """Run the frozen part."""

    def encode(self, stream: Any) -> Any:
        """Run the rest."""

    def attention_taps(self) -> list[AttentionTap]:
        """Return the projections of every layer."""

    def layout(self, stream: Any, layer: int) -> SequenceLayout:
        """Say where tokens stand in a layer."""

    def token_specs(self) -> Mapping[str, Any]:
        """Return the specification of each modality; `positions` is the dense length L."""


class Scorer(Protocol):
    """Gives each token an importance."""

    def __call__(self, model: ScorableModel, batch: TensorBatch) -> ScoreMaps:
        """Score a batch."""
