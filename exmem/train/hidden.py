"""Hidden tokens of examples: computed once and kept, or computed whenever they are asked for."""

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from exmem.backbones import Backbone, Hidden
from exmem.masking import ScoreMaps
from exmem.recipes import BoundRecipe, Masking
from exmem.replay import Pipeline
from exmem.tokens import TokenBatch
from exmem.tokens.tensors import TensorBatch
from exmem.train.batches import DataTokens, batches, images_of
from exmem.train.cache import cached, keep, text_key
from exmem.train.data import ImageText
from exmem.train.learner import Learner
from exmem.train.ranks import ALONE, Ranks

__all__ = [
    "HiddenOf",
    "KeptHidden",
    "Known",
    "LiveHidden",
    "Tokens",
    "backbone_key",
    "embedded",
    "features_of",
    "kept_and_scored",
    "kept_hidden",
    "scored",
    "scored_and_embedded",
    "stored_form",
    "tokens_of",
]

_ROWS = 64
_FEATURE_ROWS = 128
Advance = Callable[[int], None]
Tokens = Callable[[NDArray[np.int64]], TensorBatch]  # rows of the data -> their tokens


class HiddenOf(Protocol):
    """Hidden tokens by row of the data."""

    def __call__(self, rows: NDArray[np.int64], /) -> Hidden:
        """Return those of some rows, float32, on the backbone's device."""


class KeptHidden(HiddenOf):
    """Hidden tokens that were computed before, of all rows of the data or of those in `rows` (rising)."""

    def __init__(self, hidden: Hidden, device: torch.device, rows: NDArray[np.int64] | None = None) -> None:
        self._hidden, self._device, self._rows = hidden, device, rows

    @override
    def __call__(self, rows: NDArray[np.int64]) -> Hidden:
        places = rows if self._rows is None else np.searchsorted(self._rows, rows)
        return self._hidden.select(torch.from_numpy(places)).to(self._device).to(torch.float32)


class LiveHidden(HiddenOf):
    """Hidden tokens that are computed when they are asked for."""

    def __init__(self, backbone: Backbone, tokens: Tokens) -> None:
        self._backbone, self._tokens = backbone, tokens

    @override
    def __call__(self, rows: NDArray[np.int64]) -> Hidden:
        return self._backbone.embed(self._tokens(rows))


def tokens_of(backbone: Backbone, data: ImageText) -> Tokens:
    """Return what reads the tokens of rows of the data, labels included."""
    return DataTokens(backbone, data)


class Known(NamedTuple):
    """What is known of rows of the data before exemplars are made of them: hidden tokens, and fixed scores (N, L)."""

    hidden: HiddenOf | None = None
    scores: NDArray[np.float32] | None = None

    def of(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return what `BoundRecipe.make` may be told of some rows."""
        known: dict[str, Any] = {} if self.hidden is None else {"hidden": self.hidden(rows)}
        return known if self.scores is None else {**known, "scores": self.scores[rows]}


def stored_form(bound: BoundRecipe, data: ImageText, known: Known | None = None) -> Tokens:
    """Return what makes the tokens of rows of the data as a memory would give them back, were its codec lossless."""
    pipeline, backbone = Pipeline(bound.restore), bound.backbone
    assert isinstance(backbone, Backbone), "what trains has one"

    def read(rows: NDArray[np.int64]) -> TensorBatch:
        texts, labels = [data.texts[row] for row in rows.tolist()], data.labels[rows]
        images, specs = images_of(backbone, data, rows), bound.schema.extras
        extras = {name: np.zeros((len(rows), *spec.shape), np.float32) for name, spec in specs.items()}  # are not seen
        exemplars = bound.make(images, texts, labels, extras=extras, **(known or Known()).of(rows))
        batch = TensorBatch.from_numpy(TokenBatch.of(exemplars))
        pipeline.know(lambda: [batch])
        return pipeline(batch)

    return read


def scored_and_embedded(
    masking: Masking, tokens: Tokens, rows: NDArray[np.int64], advance: Advance, *, ranks: Ranks = ALONE
) -> tuple[Hidden, NDArray[np.float32]]:
    """Run the trunk over rows of the data and listen to it: hidden tokens as `embedded`, scores (N, L) of patches."""

    def compute(read: tuple[NDArray[np.int64], TensorBatch]) -> tuple[Hidden, NDArray[np.float32]]:
        _, batch = read
        maps = _maps(masking, batch)
        trunk = maps.hidden if maps.hidden is not None else _backbone(masking).embed(batch)
        return trunk.to("cpu").to(torch.float16), maps.scores["image"]

    made = ranks.over(rows, _ROWS, compute, advance, prepare=functools.partial(batches, tokens))
    parts, scores = zip(*made, strict=True)
    return Hidden.cat(parts), np.concatenate(scores)


def scored(
    masking: Masking,
    tokens: Tokens,
    hidden: HiddenOf,
    rows: NDArray[np.int64],
    advance: Advance,
    *,
    ranks: Ranks = ALONE,
) -> NDArray[np.float32]:
    """Score the patches (N, L) of rows of the data whose hidden tokens are known."""

    def compute(read: tuple[NDArray[np.int64], TensorBatch]) -> NDArray[np.float32]:
        chosen, batch = read
        return _maps(masking, batch, hidden(chosen)).scores["image"]

    return np.concatenate(ranks.over(rows, _ROWS, compute, advance, prepare=functools.partial(batches, tokens)))


def _maps(masking: Masking, batch: TensorBatch, hidden: Hidden | None = None) -> ScoreMaps:
    assert masking.scorer is not None
    return masking.scorer(_backbone(masking), batch, hidden=hidden)


def kept_hidden(
    key: str, backbone: Backbone, tokens: Tokens, rows: NDArray[np.int64], advance: Advance, *, ranks: Ranks = ALONE
) -> Hidden:
    """Return hidden tokens of all rows from the cache of all runs, or compute and keep them."""
    hidden = cached(key, ranks)
    if hidden is None:
        hidden = keep(key, embedded(backbone, tokens, rows, advance, ranks=ranks).tensors(), ranks)
    return Hidden.of(hidden)


def kept_and_scored(
    key: str,
    masking: Masking,
    tokens: Tokens,
    rows: NDArray[np.int64],
    advance: Advance,
    *,
    scorer: str,
    ranks: Ranks = ALONE,
) -> tuple[Hidden, NDArray[np.float32]]:
    """Return hidden tokens and fixed scores of all rows from the cache of all runs; one pass finds what lacks."""
    name = f"{key}-{text_key(scorer)}"
    scores = cached(name, ranks)
    if scores is None:
        found, values = scored_and_embedded(masking, tokens, rows, advance, ranks=ranks)
        scores = keep(name, {"scores": torch.from_numpy(values)}, ranks)
        hidden = cached(key, ranks)  # the same, but for rounding: those of a file that is there stay those of all runs
        return Hidden.of(keep(key, found.tensors(), ranks) if hidden is None else hidden), scores["scores"].numpy()
    return kept_hidden(key, _backbone(masking), tokens, rows, advance, ranks=ranks), scores["scores"].numpy()


def _backbone(masking: Masking) -> Backbone:
    assert isinstance(masking.backbone, Backbone), "what trains has one"
    return masking.backbone


def embedded(
    backbone: Backbone,
    tokens: Tokens,
    rows: NDArray[np.int64],
    advance: Advance | None = None,
    *,
    ranks: Ranks = ALONE,
) -> Hidden:
    """Run the trunk over rows of the data, some at a time; float16, in RAM."""

    def compute(read: tuple[NDArray[np.int64], TensorBatch]) -> Hidden:
        _, batch = read
        return backbone.embed(batch).to("cpu").to(torch.float16)

    return Hidden.cat(ranks.over(rows, _ROWS, compute, advance, prepare=functools.partial(batches, tokens)))


def features_of(learner: Learner, hidden_of: HiddenOf, rows: NDArray[np.int64], *, ranks: Ranks = ALONE) -> Tensor:
    """Return the features (N, D) of rows, some at a time, on the CPU."""

    def compute(chosen: NDArray[np.int64]) -> Tensor:
        with torch.inference_mode():
            return learner.features(hidden_of(chosen)).cpu()

    none = torch.zeros(0, learner.backbone.feature_dim)
    return torch.cat([none, *ranks.over(rows, _FEATURE_ROWS, compute)])


def backbone_key(backbone: Backbone) -> str:
    """Name what decides hidden tokens beside the data and the precision: frozen weights, sizes, modalities."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    sizes = [backbone.image_sides, backbone.max_text, backbone.num_frozen_blocks, *backbone.token_specs()]
    digest.update(json.dumps(sizes).encode())
    return digest.hexdigest()
