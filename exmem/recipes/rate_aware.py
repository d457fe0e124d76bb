"""Tokens, scale and JPEG quality chosen for each exemplar so that they keep the most score within its bytes."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.codecs import PayloadCodec, get_codec
from exmem.errors import SchemaError
from exmem.masking.rate import allocate
from exmem.recipes.base import exemplars_of
from exmem.recipes.foveated import scale_name
from exmem.recipes.masking import Masked, Masking
from exmem.recipes.scales import check_scales, compose_scales, patches_at, scale_codec
from exmem.recipes.whole import resized
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec
from exmem.tokens.tensors import TensorBatch

__all__ = ["RateAware"]

_TRIES = 8  # corrections of the budget, because patches encoded together take other bytes than one by one
_WORD_BYTES = 4  # of a text token before its row is compressed


class _Choice(NamedTuple):
    value: float
    nbytes: int
    level: NDArray[np.int64]  # of each patch: 0 dropped, then the scales
    words: NDArray[np.bool_]

    @property
    def keeps_any(self) -> bool:
        return bool(self.level.any() or self.words.any())


class RateAware:
    """For each exemplar the patches, scales, words and JPEG quality that keep the most score within its bytes.

    A patch that is stored keeps its share of the score times how well it is rendered: how much smaller its squared
    error is than that of the mean colour of the picture, over the latter and one grey level of noise. So patches that
    differ little from that colour are dropped first. A word
    that the text rule lets through, special tokens among them, keeps its share of the text's score. Both modalities
    compete for the same bytes, weighted; since a word costs four bytes and most patches more, most of the text comes
    first. The budget is spent by a Lagrangian sweep for each quality (`allocate`), on sizes that were measured by
    encoding, and the result is measured again. Where that leaves nothing, the one token that is worth most of those
    that fit is kept; so an exemplar is empty only when no single token fits. (A rule of ours.)

    Parameters
    ----------
    masking : Masking
        Its scorer and text rule are used; its keep rule only says what the text rule takes for lost.
    scales : sequence of int
        Sides of a stored patch in pixels, finest first.
    qualities : sequence of int
        JPEG qualities to choose from.
    max_bytes : int
        Bytes of an exemplar: the payloads of its patches, and 4 for each text token (before texts are compressed).
    text_weight : float
        What the whole text is worth beside the whole picture, which is worth 1; 0 or more.

    Raises
    ------
    SchemaError
        If scales, qualities, bytes or weight are out of range.
    """

    passes = 1

    def __init__(
        self,
        masking: Masking,
        *,
        scales: Sequence[int],
        qualities: Sequence[int],
        max_bytes: int,
        text_weight: float = 1.0,
    ) -> None:
        backbone = masking.backbone
        check_scales(scales, backbone.patch)
        if not qualities or len({*qualities}) < len(qualities):
            raise SchemaError(f"expected one or more different qualities, got {list(qualities)}")
        if max_bytes < 1:
            raise SchemaError(f"max_bytes of an exemplar must be 1 or more, got {max_bytes}")
        if not 0 <= text_weight < np.inf:
            raise SchemaError(f"text_weight must be 0 or more, got {text_weight}")
        self.masking, self.scales, self.qualities = masking, tuple(scales), tuple(qualities)
        self.max_bytes, self.text_weight = max_bytes, text_weight
        self._codecs: dict[tuple[int, int], PayloadCodec] = {
            (scale, quality): get_codec(scale_codec(scale, quality), shape=(scale, scale, 3), dtype="uint8")
            for scale in scales
            for quality in qualities
        }

    def schema(self) -> Schema:
        """Return a modality for each scale and quality, and text tokens."""
        specs = self.masking.backbone.token_specs()
        found = {
            self._name(scale, quality): TokenSpec(
                positions=specs["image"].positions, shape=(scale, scale, 3), codec=scale_codec(scale, quality)
            )
            for scale, quality in self._codecs
        }
        return Schema(found | ({"text": specs["text"]} if self.masking.keeps_text else {}))

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Score, and spend the bytes; see `Recipe.make`."""
        masked = self.masking(images, texts, labels)
        return exemplars_of([self._one(image, masked, row) for row, image in enumerate(images)], labels, priorities)

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Put scales and qualities together; see `Recipe.restore`."""
        backbone = self.masking.backbone
        names = {self._name(scale, quality): scale for scale, quality in self._codecs}
        tokens = {name: own for name, own in batch.tokens.items() if name not in names}
        parts = [(scale, batch.tokens[name]) for name, scale in names.items()]
        tokens["image"] = compose_scales(parts, backbone.grid, backbone.patch)
        return dataclasses.replace(batch, tokens=tokens)

    def _name(self, scale: int, quality: int) -> str:
        return f"{scale_name(scale, self.masking.backbone.patch)}_q{quality}"

    def _one(self, image: NDArray[np.uint8], masked: Masked, row: int) -> dict[str, TokenSet]:
        backbone = self.masking.backbone
        patches = {scale: patches_at(image, backbone.grid, scale) for scale in self.scales}
        full = patches_at(image, backbone.grid, backbone.patch)
        weights = _shares(masked.maps.scores["image"][row], masked.maps.valid["image"][row])
        there = masked.keep["text"][row] if self.masking.keeps_text else np.zeros(0, np.bool_)
        words = self.text_weight * _shares(masked.maps.scores["text"][row], there) if len(there) else np.zeros(0)
        quality, best = max(
            ((quality, self._choose(quality, patches, full, weights, words)) for quality in self.qualities),
            key=lambda found: (found[1].value, found[1].keeps_any),
        )
        found = {}
        for scale, other in self._codecs:
            chosen = best.level == 1 + self.scales.index(scale) if other == quality else np.zeros(len(full), np.bool_)
            found[self._name(scale, other)] = TokenSet.kept(patches[scale], chosen)
        if self.masking.keeps_text:
            values = masked.tokens.tokens["text"].values[row]
            found["text"] = TokenSet.kept(values, best.words[: len(values)])
        return found

    def _choose(
        self,
        quality: int,
        patches: dict[int, NDArray[np.uint8]],
        full: NDArray[np.uint8],
        weights: NDArray[np.float64],
        words: NDArray[np.float64],
    ) -> _Choice:
        """Return the best that fits at one quality."""
        codecs = [self._codecs[scale, quality] for scale in self.scales]
        fidelity = [_fidelity(codec, patches[scale], full) for scale, codec in zip(self.scales, codecs, strict=True)]
        values = np.stack([np.zeros(len(full)), *(weights * own for own in fidelity)], 1)
        sizes = np.stack(
            [
                np.zeros(len(full)),
                *(
                    [len(codec.encode(patch[None])) for patch in patches[scale]]
                    for scale, codec in zip(self.scales, codecs, strict=True)
                ),
            ],
            1,
        )
        options = values.shape[1]
        word_values = np.repeat(words[:, None], options, 1) * (np.arange(options) > 0)
        word_sizes = np.full(word_values.shape, float(_WORD_BYTES)) * (np.arange(options) > 0)
        values, sizes = np.concatenate([values, word_values]), np.concatenate([sizes, word_sizes])
        best, low, high = None, 0.0, 2.0 * self.max_bytes
        budget = float(self.max_bytes)
        for _ in range(_TRIES):
            choice = allocate(values, sizes, budget)
            found = self._measured(choice, values, patches, codecs, len(full))
            if found.nbytes <= self.max_bytes:
                low = budget
                best = found if best is None or found.value > best.value else best
            else:
                high = budget
            budget = (low + high) / 2
        if best is None or not best.keeps_any:
            choice = _best_alone(values, sizes, np.concatenate([weights, words]), self.max_bytes)
            best = self._measured(choice, values, patches, codecs, len(full))
        return best

    def _measured(
        self,
        choice: NDArray[np.int64],
        values: NDArray[np.float64],
        patches: dict[int, NDArray[np.uint8]],
        codecs: Sequence[PayloadCodec],
        number: int,
    ) -> _Choice:
        level, words = choice[:number], choice[number:] > 0
        nbytes = _WORD_BYTES * int(words.sum())
        for index, (scale, codec) in enumerate(zip(self.scales, codecs, strict=True), start=1):
            nbytes += len(codec.encode(patches[scale][level == index]))
        value = float(values[np.arange(len(values)), choice].sum())
        return _Choice(value, nbytes, level, words)


def _best_alone(
    values: NDArray[np.float64], sizes: NDArray[np.float64], scores: NDArray[np.float64], max_bytes: int
) -> NDArray[np.int64]:
    """Choose the one option that is worth most of those that fit; nothing where none fits."""
    choice = np.zeros(len(values), np.int64)
    fitting = np.argwhere((sizes > 0) & (sizes <= max_bytes) & (scores[:, None] > 0))
    if len(fitting):
        # Where nothing is worth anything, as in a picture of one colour: the best score, at the fewest bytes.
        item, option = max(map(tuple, fitting.tolist()), key=lambda at: (values[at], scores[at[0]], -sizes[at]))
        choice[item] = option
    return choice


def _shares(scores: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each valid token's share of the score; equal shares where there is none."""
    lowest = min(0.0, float(scores[valid].min(initial=0.0)))  # scores may be below 0, as those of `centre`
    above = np.where(valid, scores.astype(np.float64) - lowest, 0.0)
    total = above.sum()
    shares: NDArray[np.float64] = above / total if total > 0 else valid / max(1, int(valid.sum()))
    return shares


def _fidelity(codec: PayloadCodec, patches: NDArray[np.uint8], full: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how much of what tells each patch from the mean colour is left after a scale and its codec, 0..1."""
    shown = np.stack([resized(patch, full.shape[1:3]) for patch in codec.decode(codec.encode(patches))])
    error = ((shown.astype(np.float64) - full) ** 2).sum((1, 2, 3))
    variation = ((full - full.mean((0, 1, 2))) ** 2).sum((1, 2, 3))
    left: NDArray[np.float64] = np.maximum(variation - error, 0) / (variation + full[0].size)  # one level of noise
    return left
