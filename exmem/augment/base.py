"""The contract of an augmentation, and what several of them need."""

from typing import Protocol

import torch
from torch import Tensor

from exmem.errors import SchemaError
from exmem.tensors import TensorBatch, TokenTensors

__all__ = [
    "Augmentation",
    "check_share",
    "is_picture",
    "packed",
    "random_subset",
    "uniform",
]


class Augmentation(Protocol):
    """Changes a batch at random.

    The kept tokens of a row stay in front, with increasing positions; padding stays zero; labels and extras stay; the
    batch that was given is not changed. A batch without the modality that an augmentation is about comes back as it is.
    """

    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        """Augment a batch; all randomness comes from the generator."""


def check_share(name: str, value: float) -> None:
    """Refuse a probability or ratio that is none.

    Parameters
    ----------
    name : str
        How the error names it.
    value : float
        The probability or ratio.

    Raises
    ------
    SchemaError
        If it is outside 0..1.
    """
    if not 0 <= value <= 1:
        raise SchemaError(f"{name} must be in 0..1, got {value}")


def is_picture(tokens: TokenTensors) -> bool:
    """Say whether the tokens of a modality are pictures or pieces of one: (B, K, h, w, 3) uint8.

    Parameters
    ----------
    tokens : TokenTensors
        One modality.

    Returns
    -------
    bool
        False for token ids, features and whatever else has no colours.
    """
    return tokens.values.ndim == 5 and tokens.values.shape[-1] == 3 and tokens.values.dtype == torch.uint8


def uniform(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw numbers where the generator is, and return them where they are needed.

    Parameters
    ----------
    *shape : int
        Shape.
    generator : torch.Generator
        Source of randomness.
    device : torch.device
        Where the numbers are needed.

    Returns
    -------
    Tensor, float32
        Numbers in [0, 1).
    """
    return torch.rand(*shape, generator=generator, device=generator.device).to(device)


def random_subset(candidates: Tensor, counts: Tensor, *, generator: torch.Generator) -> Tensor:
    """Choose some candidates of each row at random.

    Parameters
    ----------
    candidates : Tensor, shape (B, K), bool
        True where a token may be chosen.
    counts : Tensor, shape (B,), int64
        How many; all candidates of a row that has fewer.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor, shape (B, K), bool
        True where a token was chosen.
    """
    draws = uniform(*candidates.shape, generator=generator, device=candidates.device)
    ranks = draws.masked_fill(~candidates, 2.0).argsort(1).argsort(1)  # candidates come first
    return candidates & (ranks < counts[:, None])


def packed(tokens: TokenTensors) -> TokenTensors:
    """Sort the kept tokens of each row by position, with padding behind, as wide as the longest row.

    Parameters
    ----------
    tokens : TokenTensors
        Tokens in any order; values and positions where `keep` is False may be anything.

    Returns
    -------
    TokenTensors
        The kept tokens, in the form in which a memory returns and takes them.
    """
    width = max(tokens.keep.sum(1).tolist(), default=0)
    last = torch.iinfo(tokens.positions.dtype).max
    order = tokens.positions.masked_fill(~tokens.keep, last).argsort(1)[:, :width]
    rows = torch.arange(len(order), device=order.device)[:, None]
    keep = tokens.keep[rows, order]
    values = tokens.values[rows, order]
    lost = ~keep.reshape(*keep.shape, *[1] * (values.ndim - 2))
    unknown = None if tokens.unknown is None else tokens.unknown[rows, order] & keep
    return TokenTensors(values.masked_fill(lost, 0), tokens.positions[rows, order].masked_fill(~keep, 0), keep, unknown)
