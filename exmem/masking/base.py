"""The contract of a scorer."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from exmem.masking.attention import AttentionTap, SequenceLayout
from exmem.tensors import TensorBatch

__all__ = ["ScorableModel", "ScoreMaps", "Scorer", "Similarity"]


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
    image_to_text : ndarray, shape (B, L, T), float32, or None
        Attention of each image position over the text positions.
    """

    scores: Mapping[str, NDArray[np.float32]]
    valid: Mapping[str, NDArray[np.bool_]]
    text_to_image: NDArray[np.float32] | None = None
    image_to_text: NDArray[np.float32] | None = None


class Similarity(NamedTuple):
    """What a model with one tower for each modality says of texts, whose tokens its image attention never sees.

    Parameters
    ----------
    text : Tensor, shape (B, T)
        Importance of each text token; any value for padding.
    text_to_image : Tensor, shape (B, T, K)
        How much each text token belongs to each image token.
    image_to_text : Tensor, shape (B, K, T)
        How much each image token belongs to each text token.
    """

    text: Tensor
    text_to_image: Tensor
    image_to_text: Tensor


class ScorableModel(Protocol):
    """What an attention scorer needs of a model."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""

    def embed(self, batch: TensorBatch, *, gradient: bool = False) -> Any:
        """Run the frozen part, with gradient if asked."""

    def encode(self, stream: Any) -> Any:
        """Run the rest."""

    def attention_taps(self) -> list[AttentionTap]:
        """Return the projections of every layer."""

    def layout(self, stream: Any, layer: int) -> SequenceLayout:
        """Say where tokens stand in a layer."""

    def similarity(self, batch: TensorBatch, stream: Any) -> Similarity | None:
        """Score texts by their similarity to images; None where image and text share the last layer."""

    def token_specs(self) -> Mapping[str, Any]:
        """Return the specification of each modality; `positions` is the dense length L."""


class Scorer(Protocol):
    """Gives each token an importance."""

    def __call__(self, model: ScorableModel, batch: TensorBatch) -> ScoreMaps:
        """Score a batch."""
