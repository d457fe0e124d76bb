"""What scorers say of the tokens of a batch; NumPy alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScoreMaps"]


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
    hidden : object, optional
        What the trunk made of the batch, where the scorer ran it: an `exmem.backbones.Hidden`.
    """

    scores: Mapping[str, NDArray[np.float32]]
    valid: Mapping[str, NDArray[np.bool_]]
    text_to_image: NDArray[np.float32] | None = None
    image_to_text: NDArray[np.float32] | None = None
    hidden: Any = None
