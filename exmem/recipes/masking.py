"""Scoring and masking a batch of pictures and texts: what all masking recipes begin with."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.codecs import PayloadCodec
from exmem.masking import KeepRule, ScoreMaps
from exmem.masking.scorers import Scorer
from exmem.tokens import TokenBatch, TokenSet
from exmem.tokens.tensors import TensorBatch

__all__ = ["Masked", "Masking"]


class Masked(NamedTuple):
    """A batch with what is kept of it.

    Parameters
    ----------
    tokens : TokenBatch
        All tokens.
    maps : ScoreMaps
        Their scores.
    keep : mapping of str to ndarray, shape (B, L), bool
        True where a token is kept, by modality of the batch.
    """

    tokens: TokenBatch
    maps: ScoreMaps
    keep: dict[str, NDArray[np.bool_]]

    def words(self, row: int) -> TokenSet:
        """Return the kept text tokens of a row.

        Parameters
        ----------
        row : int
            Row of the batch.

        Returns
        -------
        TokenSet
            Its text tokens.
        """
        values = self.tokens.tokens["text"].values[row]
        return TokenSet.kept(values, self.keep["text"][row, : len(values)])


class Masking:
    """A scorer, a keep rule for image patches, and a rule for the text, given what the image lost.

    Parameters
    ----------
    backbone : Backbone
        The backbone that scores.
    scorer : Scorer
        Gives tokens an importance.
    keep_rule : callable
        Turns image scores into `keep`.
    text_rule : callable or None
        Says which text tokens are kept; None where no text is kept at all.
    codec : PayloadCodec, optional
        Codec of the kept patches, for a keep rule that measures what it keeps (`fit_bytes`); it is then called with
        `encoded_bytes`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        scorer: Scorer,
        keep_rule: KeepRule,
        text_rule: KeepRule | None,
        codec: PayloadCodec | None = None,
    ) -> None:
        self.backbone, self.scorer, self.keep_rule, self.text_rule = backbone, scorer, keep_rule, text_rule
        self.codec = codec

    @property
    def keeps_text(self) -> bool:
        """Whether exemplars hold text."""
        return self.text_rule is not None and "text" in self.backbone.token_specs()

    def __call__(self, images: NDArray[np.uint8], texts: Sequence[str], labels: NDArray[np.int64]) -> Masked:
        """Score a batch and say what is kept.

        Parameters
        ----------
        images : ndarray, shape (B, H, W, 3), uint8
            Pictures.
        texts : sequence of str
            Their texts.
        labels : ndarray, shape (B,), int64
            Their classes, for scorers that explain one.

        Returns
        -------
        Masked
            The batch, its scores and what is kept.
        """
        batch = self.backbone.tokens(images, texts)
        maps = self.scorer(self.backbone, TensorBatch.from_numpy(dataclasses.replace(batch, labels=labels)))
        options = {} if self.codec is None else {"encoded_bytes": self._measure(batch, self.codec)}
        keep = {"image": self.keep_rule(maps.scores["image"], valid=maps.valid["image"], **options)}
        if self.text_rule is not None and "text" in batch.tokens:
            words = batch.tokens["text"]
            special = np.zeros_like(maps.valid["text"])
            special[:, : words.values.shape[1]] = np.isin(words.values, list(self.backbone.special_ids)) & words.valid
            keep["text"] = self.text_rule(maps, keep["image"], special)
        return Masked(batch, maps, keep)

    def _measure(self, batch: TokenBatch, codec: PayloadCodec) -> Callable[[int, NDArray[np.bool_]], int]:
        patches = batch.tokens["image"].values
        return lambda row, keep: len(codec.encode(patches[row][keep]))
