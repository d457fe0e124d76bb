"""Tokens, scale and JPEG quality chosen for each exemplar so that they keep the most score within its bytes."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.codecs import CODECS, PayloadCodec, codec_name, get_codec
from exmem.errors import SchemaError
from exmem.masking.rate import allocate
from exmem.recipes.forms.composing import (
    check_factors,
    compose_scales,
    patch_sides,
    patches_at,
    scale_codec,
    scale_name,
)
from exmem.recipes.forms.contract import Form
from exmem.recipes.forms.scaled import resized
from exmem.recipes.frame import Frame
from exmem.recipes.scoring import Masked
from exmem.tokens import TokenSet, TokenSpec
from exmem.tokens.checks import whole_number
from exmem.tokens.tensors import TokenTensors

__all__ = ["Rate"]

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate(Form):
    """For each exemplar the patches, scales, words and JPEG quality that keep the most score within its bytes.

    A patch that is stored keeps its share of the score times how well it is rendered: how much smaller its squared
    error is than that of the mean colour of the image, over the latter and one grey level of noise. So patches that
    differ little from that colour are dropped first. A word
    that the text rule lets through, special tokens among them, keeps its share of the text's score. Both modalities
    compete for the same bytes, weighted; since a word costs four bytes and most patches more, most of the text comes
    first. The budget is spent by a Lagrangian sweep for each quality (`allocate`), on sizes that were measured by
    encoding, and the result is measured again. Where that leaves nothing, the one token that is worth most of those
    that fit is kept; so an exemplar is empty only when no single token fits. (A rule of ours.)

    Parameters
    ----------
    max_bytes : int
        Bytes of an exemplar: the payloads of its patches, and 4 for each text token (before texts are compressed).
    factors : tuple of int
        Scales: the side of a patch is divided by these, finest first.
    qualities : tuple of int
        Qualities of the codec to choose from.
    text_weight : float
        What the whole text is worth beside the whole image, which is worth 1; 0 or more.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"codec", "fill", "scorer"})
    max_bytes: int = 1000
    factors: tuple[int, ...] = (1, 2, 4)
    qualities: tuple[int, ...] = (30, 60)
    text_weight: float = 1.0

    def __post_init__(self) -> None:
        whole_number(self.max_bytes, "max_bytes of an exemplar", least=1)
        check_factors(self.factors)
        for quality in self.qualities:
            whole_number(quality, "each quality")
        if not self.qualities or len({*self.qualities}) < len(self.qualities):
            raise SchemaError(f"expected one or more different qualities, got {list(self.qualities)}")
        if not (math.isfinite(self.text_weight) and self.text_weight >= 0):
            raise SchemaError(f"text_weight must be 0 or more, got {self.text_weight}")

    @override
    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        name = codec_name(str(codec["id"]))
        if "quality" not in CODECS.options(name):
            raise SchemaError(f"image form 'rate' chooses a quality, which codec {name!r} lacks; use patch_jpeg")
        return {
            _name(side, quality, frame): TokenSpec(
                grid=frame.grid, shape=(side, side, 3), codec={**scale_codec(side, codec), "quality": quality}
            )
            for side, quality in self._choices(frame)
        }

    @override
    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        sides = patch_sides(self.factors, frame.patch)
        patches = {side: patches_at(image, frame.grid, side) for side in sides}
        full = patches_at(image, frame.grid, frame.patch)
        weights = _shares(masked.maps.scores["image"][row], masked.maps.valid["image"][row])
        has_text = "text" in masked.keep
        allowed = masked.keep["text"][row] if has_text else np.zeros(0, np.bool_)
        words = self.text_weight * _shares(masked.maps.scores["text"][row], allowed) if has_text else np.zeros(0)
        specs = self.specs(frame, codec)
        chosen: dict[int, _Choice] = {}
        for quality in self.qualities:
            codecs = {side: _codec(specs[_name(side, quality, frame)]) for side in sides}
            chosen[quality] = self._choose(codecs, patches, full, weights, words)
        best = max(chosen, key=lambda quality: (chosen[quality].value, chosen[quality].keeps_any))
        level = chosen[best].level
        tokens = {
            _name(side, quality, frame): TokenSet.kept(
                patches[side], (level == 1 + sides.index(side)) & (quality == best)
            )
            for side, quality in self._choices(frame)
        }
        if has_text:
            values = masked.tokens.tokens["text"].values[row]
            tokens["text"] = TokenSet.kept(values, chosen[best].words[: len(values)])
        return tokens

    @override
    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        sides = {_name(side, quality, frame): side for side, quality in self._choices(frame)}
        restored = {name: values for name, values in tokens.items() if name not in sides}
        layers = [(side, tokens[name]) for name, side in sides.items()]
        return {**restored, "image": compose_scales(layers, frame.grid, frame.patch)}

    def _choices(self, frame: Frame) -> list[tuple[int, int]]:
        return list(itertools.product(patch_sides(self.factors, frame.patch), self.qualities))

    def _choose(
        self,
        codecs: Mapping[int, PayloadCodec],
        patches: Mapping[int, NDArray[np.uint8]],
        full: NDArray[np.uint8],
        weights: NDArray[np.float64],
        words: NDArray[np.float64],
    ) -> _Choice:
        """Return the best that fits at one quality."""
        fidelity = [_fidelity(codec, patches[side], full) for side, codec in codecs.items()]
        values = np.stack([np.zeros(len(full)), *(weights * faithful for faithful in fidelity)], 1)
        sizes = np.stack(
            [
                np.zeros(len(full)),
                *([len(codec.encode(patch[None])) for patch in patches[side]] for side, codec in codecs.items()),
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
            measured = self._measured(choice, values, patches, codecs, len(full))
            if measured.nbytes <= self.max_bytes:
                low = budget
                best = measured if best is None or measured.value > best.value else best
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
        patches: Mapping[int, NDArray[np.uint8]],
        codecs: Mapping[int, PayloadCodec],
        number: int,
    ) -> _Choice:
        level, words = choice[:number], choice[number:] > 0
        nbytes = _WORD_BYTES * int(words.sum())
        for index, (side, codec) in enumerate(codecs.items(), start=1):
            nbytes += len(codec.encode(patches[side][level == index]))
        value = float(values[np.arange(len(values)), choice].sum())
        return _Choice(value, nbytes, level, words)


def _name(side: int, quality: int, frame: Frame) -> str:
    return f"{scale_name(side, frame.patch)}_q{quality}"


def _codec(spec: TokenSpec) -> PayloadCodec:
    assert isinstance(spec.codec, Mapping)
    return get_codec(spec.codec, shape=spec.shape, dtype=spec.dtype)


def _best_alone(
    values: NDArray[np.float64], sizes: NDArray[np.float64], scores: NDArray[np.float64], max_bytes: int
) -> NDArray[np.int64]:
    """Choose the one option that is worth most of those that fit; nothing where none fits."""
    choice = np.zeros(len(values), np.int64)
    fitting = np.argwhere((sizes > 0) & (sizes <= max_bytes) & (scores[:, None] > 0))
    if len(fitting):
        # Where nothing is worth anything, as in an image of one colour: the best score, at the fewest bytes.
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
