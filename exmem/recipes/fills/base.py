"""The contract of a fill, and what several of them need."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from exmem.errors import SchemaError
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["Fill", "FillContext", "check_patches", "colour_sums", "filled"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FillContext:
    """What a fill knows beside the batch.

    Parameters
    ----------
    length : int
        Length L of the dense sequence of `image`.
    grid : tuple of int, optional
        Rows and columns of L patches, else SchemaError; a square when left out. Only fills that need places ask.
    class_means : mapping of int to Tensor, shape (3,), float32, optional
        Mean colour of each class, for `class_mean`.
    """

    length: int
    grid: tuple[int, int] | None = None
    class_means: Mapping[int, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.grid is not None and math.prod(self.grid) != self.length:
            raise SchemaError(f"expected a grid of {self.length} patches, got {self.grid}")

    def rows_and_columns(self) -> tuple[int, int]:
        """Return the grid; SchemaError if it was not given and L is no square number."""
        if self.grid is not None:
            return self.grid
        side = math.isqrt(self.length)
        if side * side != self.length:
            raise SchemaError(f"{self.length} patches form no square; give grid=(rows, columns)")
        return side, side


class Fill(Protocol):
    """Says what becomes of dropped tokens of `image`; a batch without `image` comes back as it is."""

    def __call__(self, batch: TensorBatch, context: FillContext) -> TensorBatch:
        """Fill a batch.

        Parameters
        ----------
        batch : TensorBatch
            Stored exemplars.
        context : FillContext
            What the fill knows beside them.
        """


def filled(tokens: TokenTensors, background: Tensor) -> TokenTensors:
    """Put kept tokens over a dense background (B, L, *shape), which is overwritten; all L are then kept.

    A token of unknown value stays one.
    """
    rows, places = tokens.valid.nonzero(as_tuple=True)
    positions = tokens.positions[rows, places]
    background[rows, positions] = tokens.values[rows, places]
    dense = TokenTensors.dense(background)
    if tokens.unknown is None:
        return dense
    unknown = torch.zeros_like(dense.valid)
    unknown[rows, positions] = tokens.unknown[rows, places]
    return dataclasses.replace(dense, unknown=unknown)


def check_patches(tokens: TokenTensors) -> None:
    """Refuse tokens that have no colours: SchemaError if their shape is not (h, w, 3)."""
    shape = tuple(tokens.values.shape[2:])
    if len(shape) != 3 or shape[-1] != 3:
        raise SchemaError(
            f"this fill needs image tokens of shape (h, w, 3), got {shape}; use 'drop', 'zero' or 'mask_token'"
        )


def colour_sums(tokens: TokenTensors) -> tuple[Tensor, Tensor]:
    """Add up the pixels of each row's kept patches, not those of unknown value: sums (B, 3) and counts (B, 1)."""
    check_patches(tokens)
    known = tokens.valid if tokens.unknown is None else tokens.valid & ~tokens.unknown
    sums = (tokens.values.sum((2, 3)) * known[..., None]).sum(1)
    return sums, known.sum(1, keepdim=True) * math.prod(tokens.values.shape[2:4])
