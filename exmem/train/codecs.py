"""Codecs that are trained: once for all runs whose exemplars are the same."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from exmem import __version__
from exmem.codecs import codec_name
from exmem.recipes import BoundRecipe
from exmem.tokens import Exemplar, Schema
from exmem.train.cache import cached, keep

__all__ = ["trained_codec"]


def trained_codec(bound: BoundRecipe, samples: Sequence[Exemplar] = ()) -> Mapping[str, Any] | None:
    """Return what a codec is trained to on samples, from the cache of all runs or for it; None where none is trained.

    What `BoundRecipe.schema_for` raises of samples that will not do.
    """
    if not bound.is_trained or not samples:
        return None
    name = f"codec-{_key(bound, samples)}"
    known = cached(name)
    if known is not None:
        codec: Mapping[str, Any] = json.loads(known["json"].numpy().tobytes())
        return codec
    trained = _codec(bound, bound.schema_for(samples))
    if trained is not None:
        keep(name, {"json": torch.frombuffer(bytearray(json.dumps(trained).encode()), dtype=torch.uint8)})
    return trained


def _codec(bound: BoundRecipe, schema: Schema) -> Mapping[str, Any] | None:
    """Return the codec of a schema that was trained; all its modalities of that codec have the same."""
    trained = codec_name(bound.recipe.codec.name)
    codecs = (spec.codec for spec in schema.modalities.values())
    return next((one for one in codecs if isinstance(one, Mapping) and one["id"] == trained), None)


def _key(bound: BoundRecipe, samples: Sequence[Exemplar]) -> str:
    """Name what a codec is trained on, its options, and the version of exmem, which knows how it is written."""
    digest = hashlib.blake2b(f"{__version__} {bound.recipe.codec}".encode(), digest_size=16)
    for exemplar in samples:
        for modality, tokens in sorted(exemplar.tokens.items()):
            digest.update(f"{modality} {tokens.values.dtype} {tokens.values.shape}".encode())
            digest.update(tokens.values.tobytes())
    return digest.hexdigest()
