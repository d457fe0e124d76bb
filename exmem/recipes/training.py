"""Codecs of recipes that are trained on what is stored."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exmem.codecs import CODECS, codec_name
from exmem.errors import CodecError, SchemaError
from exmem.registry import Part
from exmem.tokens import TokenSpec
from exmem.tokens.checks import mapping_of

if TYPE_CHECKING:
    from exmem.recipes.bound import BoundRecipe

__all__ = ["check_enough", "check_trained", "is_trained", "train_codec", "try_training"]

_ENOUGH = 256  # tokens, for every codec


def is_trained(codec: Part) -> bool:
    """Say whether a codec is trained."""
    return bool(CODECS[codec_name(codec.name)].trained)


def train_codec(codec: Part, values: NDArray[Any]) -> dict[str, Any]:
    """Train a codec on values (N, *shape), and return its configuration."""
    trained = CODECS[codec_name(codec.name)]
    CODECS.check(trained.codec_id, codec.kwargs)
    config: dict[str, Any] = trained.train(values, **codec.kwargs)
    return config


def check_trained(codec: Part, config: Mapping[str, Any]) -> None:
    """Refuse the configuration of another codec than a recipe's, or of other options (SchemaError)."""
    name, given = codec_name(codec.name), mapping_of(config, "codec")
    expected = {"id": name, **codec.kwargs}
    if not is_trained(codec) or any(given.get(key) != value for key, value in expected.items()):
        told = {key: given.get(key) for key in expected}
        raise SchemaError(f"codec: expected what {expected} was trained to, got {told}; train the codec of the recipe")


def try_training(codec: Part, spec: TokenSpec, tokens: int = _ENOUGH) -> None:
    """Train a codec on noise, as many tokens as given, so that what is wrong is told here (CodecError)."""
    noise = np.random.default_rng(0).standard_normal((min(tokens, _ENOUGH), *spec.shape))
    train_codec(codec, noise.astype(spec.dtype))


def check_enough(bound: "BoundRecipe", exemplars: int) -> None:
    """Refuse, before anything is learnt, a codec that so many exemplars have too few tokens to train (CodecError)."""
    recipe, frame, rule = bound.recipe, bound.restore.frame, bound.masking.keep_rule
    if frame is None or not bound.is_trained:
        return
    each = 1
    if recipe.level == "hidden":
        scores = np.random.default_rng(0).random((1, frame.length), np.float32)
        each = frame.prefix + (frame.length if rule is None else int(rule(scores, valid=scores >= 0).sum()))
    try:
        try_training(recipe.codec, bound.schema.modalities[recipe.level], exemplars * each)
    except CodecError as error:
        raise CodecError(
            f"recipe {recipe.name!r}: {exemplars} examples of the first phase have {exemplars * each} tokens, and "
            f"{error}; begin with more classes, or choose another codec"
        ) from error
