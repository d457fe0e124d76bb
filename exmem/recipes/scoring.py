"""Which tokens of a batch are kept: what all recipes begin with."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone, Hidden
from exmem.codecs import PayloadCodec
from exmem.masking import KeepRule, ScoreMaps, keep_all_text
from exmem.masking.scorers import FixedScorer, Scorer
from exmem.recipes.plain import PlainImages
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
        Their scores; zeros where nothing was scored.
    keep : mapping of str to ndarray, shape (B, L), bool
        True where a token is kept, by modality that is stored.
    hidden : Hidden, optional
        The kept image tokens as the frozen layers made them, for a form that stores these.
    features : ndarray, shape (B, D), float32, optional
        What a classifier sees, for a form that stores it.
    """

    tokens: TokenBatch
    maps: ScoreMaps
    keep: dict[str, NDArray[np.bool_]]
    hidden: Hidden | None = None
    features: NDArray[np.float32] | None = None

    def words(self, row: int) -> TokenSet:
        """Return the kept text tokens of a row.

        Parameters
        ----------
        row : int
            Row of the batch.
        """
        values = self.tokens.tokens["text"].values[row]
        return TokenSet.kept(values, self.keep["text"][row, : len(values)])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Masking:
    """A scorer, a keep rule for image patches, and a rule for the text, given what the image lost.

    Parameters
    ----------
    backbone : Backbone or PlainImages
        Cuts images and texts into tokens, and scores them.
    scorer : Scorer, optional
        Gives tokens an importance; None scores nothing.
    keep_rule : KeepRule, optional
        Turns image scores into `keep`; None keeps every patch.
    text_rule : KeepRule, optional
        Says which words are kept; None keeps no text at all.
    codec : PayloadCodec, optional
        That of the patches, for a keep rule that measures `encoded_bytes`.
    """

    backbone: Backbone | PlainImages
    scorer: Scorer | None
    keep_rule: KeepRule | None
    text_rule: KeepRule | None
    codec: PayloadCodec | None = None

    def __call__(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        *,
        hidden: Hidden | None = None,
        scores: NDArray[np.float32] | None = None,
    ) -> Masked:
        """Mask images and texts.

        Parameters
        ----------
        images : ndarray, shape (B, H, W, 3), uint8
            As large as the backbone sees them.
        texts : sequence of str
            One an image.
        labels : ndarray, shape (B,), int64
            Classes, for scorers that explain them.
        hidden : Hidden, optional
            What the trunk made of them, where it is known.
        scores : ndarray, shape (B, L), float32, optional
            Scores of the patches, where they are fixed (`is_fixed`) and known.

        Returns
        -------
        Masked
            The batch, its scores and what is kept.
        """
        batch = self.backbone.tokens(images, texts)
        maps = self._maps(dataclasses.replace(batch, labels=labels), hidden, scores)
        keep = {}
        if "image" in batch.tokens:
            valid = maps.valid["image"]
            options = {} if self.codec is None else {"encoded_bytes": self._measure(batch, self.codec)}
            keep["image"] = (
                valid if self.keep_rule is None else self.keep_rule(maps.scores["image"], valid=valid, **options)
            )
        if self.text_rule is not None and "text" in batch.tokens:
            words = batch.tokens["text"]
            special = np.zeros_like(maps.valid["text"])
            special[:, : words.values.shape[1]] = np.isin(words.values, list(self.backbone.special_ids)) & words.valid
            keep["text"] = self.text_rule(maps, keep.get("image", np.zeros((len(batch), 0), np.bool_)), special)
        return Masked(batch, maps, keep)

    @property
    def is_fixed(self) -> bool:
        """Whether what is kept of an image never changes while the backbone is tuned, and of a text either."""
        scoreless = self.text_rule in {None, keep_all_text}
        if isinstance(self.backbone, PlainImages) or not isinstance(self.scorer, FixedScorer):
            return False
        return scoreless and self.scorer.is_fixed(self.backbone)

    def _maps(self, batch: TokenBatch, hidden: Hidden | None, scores: NDArray[np.float32] | None) -> ScoreMaps:
        if self.scorer is not None and scores is None:
            model: Any = self.backbone  # a scorer that needs more than plain images have was refused by the recipe
            return self.scorer(model, TensorBatch.from_numpy(batch), hidden=hidden)
        valid = {}
        for name, spec in self.backbone.token_specs().items():
            held = batch.tokens[name].valid
            valid[name] = np.pad(held, ((0, 0), (0, spec.positions - held.shape[1])))
        zeros = {name: np.zeros(tokens.shape, np.float32) for name, tokens in valid.items()}
        return ScoreMaps(zeros if scores is None else {**zeros, "image": scores}, valid)

    def _measure(self, batch: TokenBatch, codec: PayloadCodec) -> Callable[[int, NDArray[np.bool_]], int]:
        patches = batch.tokens["image"].values
        return lambda row, keep: len(codec.encode(patches[row][keep]))
