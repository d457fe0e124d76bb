"""Horizontal flip of the whole image: places and values."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

from exmem.errors import SchemaError
from exmem.replay.augment.base import Augmentation, check_share, images_of
from exmem.tokens.tensors import TensorBatch, TokenTensors, packed, uniform

__all__ = ["Flip"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip(Augmentation):
    """Mirror images left to right: tokens move within their grid and their values are mirrored.

    All scales of an exemplar are flipped together. Tokens are sorted by position again.

    Parameters
    ----------
    grids : mapping of str to tuple of int
        Rows and columns of each modality that holds pieces of the image; (1, 1) for the whole image as one token.
    probability : float
        Chance of each exemplar, 0..1.

    Examples
    --------
    >>> flip = Flip(grids={"image": (12, 16), "thumbnail": (1, 1)})
    """

    grids: Mapping[str, tuple[int, int]]
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        for name, grid in self.grids.items():
            if len(grid) != 2 or min(grid) < 1:
                raise SchemaError(f"the grid of {name!r} must be (rows, columns) of 1 or more, got {grid}")

    @override
    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        """Flip some exemplars; SchemaError if a modality with images has no grid, or a position lies outside it."""
        images = images_of(batch, "flip")
        missing = sorted(set(images) - set(self.grids))
        if missing:
            raise SchemaError(
                f"flip knows no grid of {missing} and would mirror a part of the image only; add them to grids"
            )
        chosen = uniform(len(batch), generator=generator, device=batch.labels.device) < self.probability
        changed = {name: _flipped(tokens, name, self.grids[name], chosen) for name, tokens in images.items()}
        return batch.with_tokens(changed)


def _flipped(tokens: TokenTensors, name: str, grid: tuple[int, int], chosen: Tensor) -> TokenTensors:
    rows, columns = grid
    if (tokens.positions >= rows * columns).any():
        raise SchemaError(
            f"modality {name!r} has position {int(tokens.positions.max())}, outside its grid of {rows} x {columns}"
        )
    row, column = tokens.positions // columns, tokens.positions % columns
    positions = torch.where(chosen[:, None], row * columns + columns - 1 - column, tokens.positions)
    values = tokens.values.clone()
    values[chosen] = tokens.values[chosen].flip(3)
    return packed(dataclasses.replace(tokens, values=values, positions=positions))
