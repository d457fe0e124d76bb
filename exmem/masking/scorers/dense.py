"""From the tokens of a batch to the dense sequences that score maps are in."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from exmem.backbones.contract import Backbone
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["dense_lengths", "place", "place_pairs", "valid_tokens"]


def dense_lengths(model: Backbone) -> Mapping[str, int]:
    """Return the positions L of each modality of a model."""
    return {name: int(spec.positions) for name, spec in model.token_specs().items()}


def place(
    values: NDArray[np.float32] | NDArray[np.bool_], tokens: TokenTensors | None, length: int
) -> NDArray[np.float32]:
    """Put a value of each token, (B, K, ...), at its position, (B, L, ...) float32; 0 where there is no token.

    All is 0 where the batch lacks the modality: `tokens` is None.
    """
    out = np.zeros((len(values), length, *values.shape[2:]), np.float32)
    if tokens is not None:
        rows, columns = np.nonzero(tokens.valid.cpu().numpy())
        out[rows, tokens.positions.cpu().numpy()[rows, columns]] = values[rows, columns]
    return out


def place_pairs(
    values: NDArray[np.float32], pair: tuple[TokenTensors | None, TokenTensors | None], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Put a value of each pair of tokens, (B, K1, K2), at both positions, (B, L1, L2); 0 where one is missing."""
    half = place(values, pair[0], shape[0])
    return np.ascontiguousarray(place(half.transpose(0, 2, 1), pair[1], shape[1]).transpose(0, 2, 1))


def valid_tokens(model: Backbone, batch: TensorBatch) -> dict[str, NDArray[np.bool_]]:
    """Say where a batch has tokens, (B, L), for every modality of a model; one that is missing counts as empty."""
    by_modality = {}
    for name, length in dense_lengths(model).items():
        tokens = batch.tokens.get(name)
        valid = np.zeros((len(batch), 0), np.bool_) if tokens is None else tokens.valid.cpu().numpy()
        by_modality[name] = place(valid, tokens, length) > 0
    return by_modality
