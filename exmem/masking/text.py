"""Text rules: which text tokens are kept, given what the image lost."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.masking.keep import keep_ratio, mean_threshold
from exmem.masking.maps import ScoreMaps

__all__ = ["Direction", "keep_all_text", "keep_no_text", "keep_text_of_lost_patches", "keep_text_ratio"]

Direction = Literal["text_to_image", "image_to_text", "both"]


def keep_text_of_lost_patches(
    maps: ScoreMaps,
    image_keep: NDArray[np.bool_],
    special: NDArray[np.bool_],
    *,
    direction: Direction = "text_to_image",
    cls_threshold: float = 1.0,
    lost_threshold: float = 1.0,
) -> NDArray[np.bool_]:
    """Keep a text token if the class token attends to it, or if it and what the image lost attend to each other.

    Parameters
    ----------
    maps : ScoreMaps
        Scores of a batch with the attention between texts and images.
    image_keep : ndarray, shape (B, L), bool
        Image tokens that are kept.
    special : ndarray, shape (B, T), bool
        Special tokens of the tokenizer: always kept, never part of a mean (a choice; the encoder expects them).
    direction : {"text_to_image", "image_to_text", "both"}
        Which attention counts: of the words over the lost patches, of the lost patches over the words, or either.
    cls_threshold, lost_threshold : float
        Thresholds in multiples of the mean over the words of the text; 1 is our reading of the paper.

    Returns
    -------
    ndarray, shape (B, T), bool
        True where the text token is kept.

    Raises
    ------
    SchemaError
        If the direction is unknown.
    InvalidExemplarError
        If the maps hold no attention between texts and images.

    Notes
    -----
    Exemplar masking (Lee et al. 2024): the discarded region enters the text mask. Our reading: keep token t iff
    A_CLS->t > mean, or its attention summed over the discarded patches > mean; means over the words of the text. Each
    condition keeps at least its best word (a choice).
    """
    if direction not in _DIRECTIONS:
        raise SchemaError(f"unknown direction {direction!r}; choose one of {sorted(_DIRECTIONS)}")
    words = maps.valid["text"] & ~special
    lost = (maps.valid["image"] & ~image_keep).astype(np.float32)
    chosen = mean_threshold(maps.scores["text"], factor=cls_threshold, valid=words)
    for name in _DIRECTIONS[direction]:
        pairs = getattr(maps, name)
        if pairs is None:
            raise InvalidExemplarError(f"this text rule needs {name}; score images and texts together")
        chosen |= mean_threshold(np.einsum(_SUMS_OVER_LOST[name], pairs, lost), factor=lost_threshold, valid=words)
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


def keep_text_ratio(
    maps: ScoreMaps, image_keep: NDArray[np.bool_], special: NDArray[np.bool_], *, ratio: float
) -> NDArray[np.bool_]:
    """Keep a share of the text tokens, those of the highest scores, whatever the image lost.

    Parameters
    ----------
    maps : ScoreMaps
        Scores of a batch.
    image_keep : ndarray, shape (B, L), bool
        Image tokens that are kept; not used.
    special : ndarray, shape (B, T), bool
        Special tokens of the tokenizer: always kept, never part of the share (a choice).
    ratio : float
        Share of the other tokens, above 0 and at most 1; see `keep_ratio`.

    Returns
    -------
    ndarray, shape (B, T), bool
        True where the text token is kept.
    """
    valid = maps.valid["text"]
    return (keep_ratio(maps.scores["text"], ratio=ratio, valid=valid & ~special)) | (valid & special)


def keep_no_text(maps: ScoreMaps, image_keep: NDArray[np.bool_], special: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep no text at all, special tokens neither: an exemplar of its image alone.

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
        False everywhere.
    """
    return np.zeros_like(maps.valid["text"])


_SUMS_OVER_LOST = {"text_to_image": "btl,bl->bt", "image_to_text": "blt,bl->bt"}
_DIRECTIONS: dict[str, tuple[str, ...]] = {
    "text_to_image": ("text_to_image",),
    "image_to_text": ("image_to_text",),
    "both": ("text_to_image", "image_to_text"),
}
