"""Hidden tokens of examples: computed once and kept, or computed whenever they are asked for."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from typing_extensions import override

from exmem.backbones import Backbone, Hidden
from exmem.backbones.packaged import cache_dir
from exmem.errors import SchemaError
from exmem.recipes import BoundRecipe, Masking
from exmem.replay import Pipeline
from exmem.store import parse_bytes
from exmem.tokens import TokenBatch
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText

__all__ = [
    "HiddenOf",
    "KeptHidden",
    "Known",
    "LiveHidden",
    "backbone_key",
    "embedded",
    "kept_or_computed",
    "scored_and_embedded",
    "stored_form",
    "text_key",
    "tokens_of",
]

_ROWS = 64
_ABANDONED_S = 86_400  # since a file was last written to that its writer has not put in place
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

    def read(rows: NDArray[np.int64]) -> TensorBatch:
        texts = [data.texts[row] for row in rows.tolist()]
        tokens = backbone.tokens(data.images(rows, backbone.image_sides), texts)
        return TensorBatch.from_numpy(TokenBatch(tokens.tokens, data.labels[rows]))

    return read


class Known(NamedTuple):
    """What is known of rows of the data before exemplars are made of them: hidden tokens, or fixed scores (N, L)."""

    hidden: HiddenOf | None = None
    scores: NDArray[np.float32] | None = None

    def of(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return what `BoundRecipe.make` may be told of some rows."""
        if self.scores is not None:
            return {"scores": self.scores[rows]}
        return {} if self.hidden is None else {"hidden": self.hidden(rows)}


def stored_form(bound: BoundRecipe, data: ImageText, known: Known | None = None) -> Tokens:
    """Return what makes the tokens of rows of the data as a memory would give them back, were its codec lossless."""
    pipeline, backbone = Pipeline(bound.restore), bound.backbone
    assert isinstance(backbone, Backbone), "what trains has one"

    def read(rows: NDArray[np.int64]) -> TensorBatch:
        texts, labels = [data.texts[row] for row in rows.tolist()], data.labels[rows]
        images, specs = data.images(rows, backbone.image_sides), bound.schema.extras
        extras = {name: np.zeros((len(rows), *spec.shape), np.float32) for name, spec in specs.items()}  # are not seen
        exemplars = bound.make(images, texts, labels, extras=extras, **(known or Known()).of(rows))
        batch = TensorBatch.from_numpy(TokenBatch.of(exemplars))
        pipeline.know(lambda: [batch])
        return pipeline(batch)

    return read


def scored_and_embedded(
    masking: Masking, tokens: Tokens, rows: NDArray[np.int64], advance: Advance
) -> dict[str, Tensor]:
    """Run the trunk over rows of the data and listen to it: hidden tokens as `embedded`, `scores` of the patches."""
    model, scorer = masking.backbone, masking.scorer
    assert isinstance(model, Backbone)
    assert scorer is not None
    parts, scores = [], []
    for start in range(0, len(rows), _ROWS):
        batch = tokens(rows[start : start + _ROWS])
        maps = scorer(model, batch)
        parts.append(maps.hidden.to("cpu").to(torch.float16))
        scores.append(torch.from_numpy(maps.scores["image"]))
        advance(len(batch))
    return {**Hidden.cat(parts).tensors(), "scores": torch.cat(scores)}


def embedded(backbone: Backbone, tokens: Tokens, rows: NDArray[np.int64], advance: Advance | None = None) -> Hidden:
    """Run the trunk over rows of the data, some at a time; float16, in RAM."""
    parts = []
    for start in range(0, len(rows), _ROWS):
        chosen = rows[start : start + _ROWS]
        parts.append(backbone.embed(tokens(chosen)).to("cpu").to(torch.float16))
        if advance is not None:
            advance(len(chosen))
    return Hidden.cat(parts)


def backbone_key(backbone: Backbone) -> str:
    """Name what decides hidden tokens beside the data: frozen weights, sizes, modalities."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    sizes = [backbone.image_sides, backbone.max_text, backbone.num_frozen_blocks, *backbone.token_specs()]
    digest.update(json.dumps(sizes).encode())
    return digest.hexdigest()


def text_key(text: str) -> str:
    """Name a text in a few letters that a file name may hold."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def kept_or_computed(name: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of a name in the cache that all runs share, or compute and keep them.

    The cache holds at most `EXMEM_HIDDEN_BYTES` (16GB when unset); what was not used for longest goes first, and what
    is larger by itself is not kept.
    """
    most, file = _most_bytes(), cache_dir() / "hidden" / f"{name}.safetensors"
    try:
        os.utime(file)
        return load_file(file)
    except (FileNotFoundError, SafetensorError):  # not there, removed meanwhile by another process, or cut off
        tensors = {key: tensor.detach().contiguous() for key, tensor in compute().items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary)
        if (size := temporary.stat().st_size) <= most:
            _make_room(file, most - size)
            temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return tensors


def _most_bytes() -> int:
    try:
        return parse_bytes(os.environ.get("EXMEM_HIDDEN_BYTES", "16GB"))
    except SchemaError as error:
        raise SchemaError(f"EXMEM_HIDDEN_BYTES: {error}") from error


def _make_room(coming: Path, most: int) -> None:
    """Remove what was not used for longest until at most so many bytes are left beside the coming file."""
    others: list[tuple[float, int, Path]] = []
    for other in coming.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process makes room, too
            used, size = other.stat().st_mtime, other.stat().st_size
            if other.suffix != ".tmp" and other != coming:
                others.append((used, size, other))
            elif other.suffix == ".tmp" and time.time() - used > _ABANDONED_S:
                other.unlink()
    held = sum(size for _, size, _ in others)
    for _, size, other in sorted(others):
        if held > most:
            held -= size
            other.unlink(missing_ok=True)
