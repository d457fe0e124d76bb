"""Token batches as torch tensors: what scorers, fills and backbones work on."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from exmem.tokens import PaddedTokens, TokenBatch

__all__ = ["TensorBatch", "TokenTensors", "packed", "random_subset", "uniform", "upsampled"]


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTensors:
    """One modality of a batch on a device.

    `values` are (B, K, *shape) and 0 where `valid` is False; `positions` (B, K) int64, in the dense sequence, 0 there
    too; `valid` (B, K) bool, False for padding. `unknown` (B, K) bool is True for a token whose place is known and
    whose value is not: a backbone puts its mask token there.
    """

    values: Tensor
    positions: Tensor
    valid: Tensor
    unknown: Tensor | None = None

    @classmethod
    def from_numpy(cls, tokens: PaddedTokens) -> "TokenTensors":
        """Wrap the arrays of a padded token set without copying."""
        return cls(torch.from_numpy(tokens.values), torch.from_numpy(tokens.positions), torch.from_numpy(tokens.valid))

    @classmethod
    def dense(cls, values: Tensor) -> "TokenTensors":
        """Keep every token of a dense batch (B, L, *shape): positions 0..L-1 in each row."""
        rows, length = values.shape[:2]
        positions = torch.arange(length, device=values.device).expand(rows, length)
        return cls(values, positions, torch.ones(rows, length, dtype=torch.bool, device=values.device))

    def select(self, rows: Tensor) -> "TokenTensors":
        """Return some rows: their indices (R,), int64."""
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "TokenTensors":
        """Return the same tokens on another device; `non_blocking` as in `Tensor.to`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def trimmed(self) -> "TokenTensors":
        """Return the same tokens without the padding that no row needs."""
        used = self.valid.any(0).nonzero()
        length = int(used[-1]) + 1 if len(used) else 0
        return self._each(lambda tensor: tensor[:, :length])

    @classmethod
    def cat(cls, parts: Sequence["TokenTensors"]) -> "TokenTensors":
        """Put the rows of one or more batches together, padded to the longest; all or none of them have `unknown`."""
        length = max(batch.valid.shape[1] for batch in parts)
        longer = [
            batch._each(lambda values: pad(values, [0, 0] * (values.ndim - 2) + [0, length - values.shape[1]]))
            for batch in parts
        ]
        unknown = [batch.unknown for batch in longer if batch.unknown is not None]
        return cls(
            torch.cat([batch.values for batch in longer]),
            torch.cat([batch.positions for batch in longer]),
            torch.cat([batch.valid for batch in longer]),
            torch.cat(unknown) if unknown else None,
        )

    def pin_memory(self) -> "TokenTensors":
        """Return the same tokens in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TokenTensors":
        unknown = None if self.unknown is None else change(self.unknown)
        return TokenTensors(change(self.values), change(self.positions), change(self.valid), unknown)


@dataclasses.dataclass(frozen=True, eq=False)
class TensorBatch:
    """B exemplars as tensors.

    `labels` are (B,) int64, `extras` (B, ...) by name; `priorities` (B,) float64, the ranks within the class, and
    `slots` (B,) int64, for `memory.update`, where the exemplars are of a memory. `layer` counts the blocks that
    the image tokens went through; None for patches.
    """

    tokens: Mapping[str, TokenTensors]
    labels: Tensor
    extras: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    priorities: Tensor | None = None
    slots: Tensor | None = None
    layer: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_numpy(cls, batch: TokenBatch) -> "TensorBatch":
        """Wrap the arrays of a token batch without copying.

        Parameters
        ----------
        batch : TokenBatch
            As a memory returned it.
        """
        return cls(
            {name: TokenTensors.from_numpy(tokens) for name, tokens in batch.tokens.items()},
            torch.from_numpy(batch.labels),
            {name: torch.from_numpy(values) for name, values in batch.extras.items()},
            torch.from_numpy(batch.priorities),
            None if batch.slots is None else torch.from_numpy(batch.slots),
        )

    def with_tokens(self, changed: Mapping[str, TokenTensors]) -> Self:
        """Return the batch with some modalities replaced or added; all else is the same.

        Parameters
        ----------
        changed : mapping of str to TokenTensors
            New tokens by modality.
        """
        return dataclasses.replace(self, tokens={**self.tokens, **changed})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the same batch on another device.

        Parameters
        ----------
        device : torch.device or str
            Where to.
        non_blocking : bool
            As in `Tensor.to`.
        """
        return self._each(
            lambda tokens: tokens.to(device, non_blocking=non_blocking),
            lambda tensor: tensor.to(torch.device(device), non_blocking=non_blocking),
        )

    def pin_memory(self) -> Self:
        """Return the same batch in page-locked memory."""
        return self._each(TokenTensors.pin_memory, Tensor.pin_memory)

    def _each(self, of_tokens: Callable[[TokenTensors], TokenTensors], of_others: Callable[[Tensor], Tensor]) -> Self:
        return dataclasses.replace(
            self,
            tokens={name: of_tokens(tokens) for name, tokens in self.tokens.items()},
            labels=of_others(self.labels),
            extras={name: of_others(values) for name, values in self.extras.items()},
            priorities=None if self.priorities is None else of_others(self.priorities),
            slots=None if self.slots is None else of_others(self.slots),
        )


def packed(tokens: TokenTensors) -> TokenTensors:
    """Sort the kept tokens of each row by position, with padding behind, as wide as the longest row.

    That is the form in which a memory returns and takes them. Tokens may come in any order, and values and positions
    where `valid` is False may be anything.
    """
    width = max(tokens.valid.sum(1).tolist(), default=0)
    last = torch.iinfo(tokens.positions.dtype).max
    order = tokens.positions.masked_fill(~tokens.valid, last).argsort(1)[:, :width]
    rows = torch.arange(len(order), device=order.device)[:, None]
    valid = tokens.valid[rows, order]
    values = tokens.values[rows, order]
    lost = ~valid.reshape(*valid.shape, *[1] * (values.ndim - 2))
    unknown = None if tokens.unknown is None else tokens.unknown[rows, order] & valid
    return TokenTensors(
        values.masked_fill(lost, 0), tokens.positions[rows, order].masked_fill(~valid, 0), valid, unknown
    )


def random_subset(candidates: Tensor, counts: Tensor, *, generator: torch.Generator) -> Tensor:
    """Choose `counts` (B,) of the `candidates` (B, K) of each row at random: (B, K), bool.

    All of a row that has fewer are chosen.
    """
    draws = uniform(*candidates.shape, generator=generator, device=candidates.device)
    ranks = draws.masked_fill(~candidates, 2.0).argsort(1).argsort(1)  # candidates come first
    return candidates & (ranks < counts[:, None])


def uniform(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw float32 numbers in [0, 1) where the generator is, and return them on the device where they are needed."""
    return torch.rand(*shape, generator=generator, device=generator.device).to(device)


def upsampled(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale token images (B, K, h, w, 3), uint8, up to height and width `size`, bicubic, rounded and clamped.

    A smaller size than theirs would alias; where it is theirs, the same ones come back.
    """
    count, number, height, width, channels = values.shape
    if (height, width) == size:
        return values
    if count * number == 0:
        return values.new_zeros(count, number, *size, channels)
    channels_first = values.flatten(0, 1).permute(0, 3, 1, 2).float()
    larger = interpolate(channels_first, size=size, mode="bicubic", align_corners=False)
    pixels = larger.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return pixels.reshape(count, number, *size, channels)
