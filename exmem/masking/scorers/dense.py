"""From the tokens of a batch to the dense sequences that score maps are in."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from exmem.backbones.contract import Backbone
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["dense_lengths", "place", "place_pairs", "valid_tokens"]


def dense_lengths(model: Backbone) -> Mapping[str, int]:
    """Return the dense length of each modality of a model.

    Parameters
    ----------
    model : Backbone
        A backbone.

    Returns
    -------
    mapping of str to int
        Positions L by modality.
    """
    return {name: int(spec.positions) for name, spec in model.token_specs().items()}


def place(
    values: NDArray[np.float32] | NDArray[np.bool_], tokens: TokenTensors | None, length: int
) -> NDArray[np.float32]:
    """Put a value of each token at the token's position.

    Parameters
    ----------
    values : ndarray, shape (B, K, ...)
        One value per token of the batch.
    tokens : TokenTensors or None
        The tokens; None where the batch lacks the modality.
    length : int
        Dense length L.

    Returns
    -------
    ndarray, shape (B, L, ...), float32
        The values, 0 where there is no token.
    """
    out = np.zeros((len(values), length, *values.shape[2:]), np.float32)
    if tokens is not None:
        rows, columns = np.nonzero(tokens.valid.cpu().numpy())
        out[rows, tokens.positions.cpu().numpy()[rows, columns]] = values[rows, columns]
    return out


def place_pairs(
    values: NDArray[np.float32], pair: tuple[TokenTensors | None, TokenTensors | None], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Put a value of each pair of tokens at the positions of both.

    Parameters
    ----------
    values : ndarray, shape (B, K1, K2), float32
        One value per pair.
    pair : tuple of TokenTensors or None
        Tokens of the one and of the other modality.
    shape : tuple of int
        Their dense lengths L1 and L2.

    Returns
    -------
    ndarray, shape (B, L1, L2), float32
        The values, 0 where a token is missing.
    """
    half = place(values, pair[0], shape[0])
    return np.ascontiguousarray(place(half.transpose(0, 2, 1), pair[1], shape[1]).transpose(0, 2, 1))


def valid_tokens(model: Backbone, batch: TensorBatch) -> dict[str, NDArray[np.bool_]]:
    """Say where the tokens of a batch are, for every modality of a model.

    Parameters
    ----------
    model : Backbone
        A backbone.
    batch : TensorBatch
        Tokens; a modality that is missing counts as empty.

    Returns
    -------
    dict of str to ndarray, shape (B, L), bool
        True where there is a token.
    """
    found = {}
    for name, length in dense_lengths(model).items():
        tokens = batch.tokens.get(name)
        valid = np.zeros((len(batch), 0), np.bool_) if tokens is None else tokens.valid.cpu().numpy()
        found[name] = place(valid, tokens, length) > 0
    return found
