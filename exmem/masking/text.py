"""Text rules: which text tokens are kept, given what the image lost."""

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError
from exmem.masking.base import ScoreMaps
from exmem.masking.keep import mean_threshold

__all__ = ["keep_all_text", "keep_text_of_lost_patches"]


def keep_text_of_lost_patches(
    maps: ScoreMaps, image_keep: NDArray[np.bool_], special: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Keep a text token if the class token attends to it, or if it attends to what the image lost.

    Parameters
    ----------
    maps : ScoreMaps
        Scores of a batch with `text_to_image`.
    image_keep : ndarray, shape (B, L), bool
        Image tokens that are kept.
    special : ndarray, shape (B, T), bool
        Special tokens of the tokenizer: always kept, never part of a mean (a choice; the encoder expects them).

    Returns
    -------
    ndarray, shape (B, T), bool
        True where the text token is kept.

    Raises
    ------
    InvalidExemplarError
        If the maps hold no attention of text over the image.

    Notes
    -----
    Exemplar masking (Lee et al. 2024): the discarded region enters the text mask. Our reading: keep token t iff
    A_CLS->t > mean, or its attention summed over the discarded patches > mean; means over the words of the text.
    """
    if maps.text_to_image is None:
        raise InvalidExemplarError("the text rule needs text_to_image; score images and texts together")
    words = maps.valid["text"] & ~special
    lost = maps.valid["image"] & ~image_keep
    to_lost = np.einsum("btl,bl->bt", maps.text_to_image, lost.astype(np.float32))
    chosen = mean_threshold(maps.scores["text"], valid=words) | mean_threshold(to_lost, valid=words)
    return (chosen & words) | (maps.valid["text"] & special)


def keep_all_text(maps: ScoreMaps, image_keep: NDArray[np.bool_], special: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the whole text.

    Parameters
    ----------
    maps : ScoreMaps
        Scores of a batch.
    image_keep : ndarray, shape (B, L), bool
        Image tokens that are kept; not used.
    special : ndarray, shape (B, T), bool
        Special tokens; not used.

    Returns
    -------
    ndarray, shape (B, T), bool
        True where there is a token.
    """
    return maps.valid["text"].copy()
