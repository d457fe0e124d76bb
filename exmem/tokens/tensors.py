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

    Parameters
    ----------
    values : Tensor, shape (B, K, *shape)
        Values; zero where `valid` is False.
    positions : Tensor, shape (B, K), int64
        Positions in the dense sequence; 0 where `valid` is False.
    valid : Tensor, shape (B, K), bool
        True for a token, False for padding.
    unknown : Tensor, shape (B, K), bool, optional
        True for a token whose place is known and whose value is not: a backbone puts its mask token there.
    """

    values: Tensor
    positions: Tensor
    valid: Tensor
    unknown: Tensor | None = None

    @classmethod
    def from_numpy(cls, tokens: PaddedTokens) -> "TokenTensors":
        """Wrap the arrays of a padded token set without copying.

        Parameters
        ----------
        tokens : PaddedTokens
            One modality of a batch.

        Returns
        -------
        TokenTensors
            Tensors that share the memory of the arrays.
        """
        return cls(torch.from_numpy(tokens.values), torch.from_numpy(tokens.positions), torch.from_numpy(tokens.valid))

    @classmethod
    def dense(cls, values: Tensor) -> "TokenTensors":
        """Keep every token of a dense batch.

        Parameters
        ----------
        values : Tensor, shape (B, L, *shape)
            All tokens in order.

        Returns
        -------
        TokenTensors
            Positions 0..L-1 in each row.
        """
        rows, length = values.shape[:2]
        positions = torch.arange(length, device=values.device).expand(rows, length)
        return cls(values, positions, torch.ones(rows, length, dtype=torch.bool, device=values.device))

    def select(self, rows: Tensor) -> "TokenTensors":
        """Return some rows.

        Parameters
        ----------
        rows : Tensor, shape (R,), int64
            Rows of the batch.

        Returns
        -------
        TokenTensors
            Those rows.
        """
        return self._each(lambda part: part[rows])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "TokenTensors":
        """Return the same tokens on another device.

        Parameters
        ----------
        device : torch.device or str
            Where to.
        non_blocking : bool
            As in `Tensor.to`.

        Returns
        -------
        TokenTensors
            The tokens there.
        """
        return self._each(lambda part: part.to(device, non_blocking=non_blocking))

    def trimmed(self) -> "TokenTensors":
        """Return the same tokens without the padding that no row needs."""
        used = self.valid.any(0).nonzero()
        length = int(used[-1]) + 1 if len(used) else 0
        return self._each(lambda part: part[:, :length])

    @classmethod
    def cat(cls, parts: Sequence["TokenTensors"]) -> "TokenTensors":
        """Put the rows of one or more batches together, padded to the longest; all or none of them have `unknown`."""
        length = max(part.valid.shape[1] for part in parts)
        longer = [
            part._each(lambda values: pad(values, [0, 0] * (values.ndim - 2) + [0, length - values.shape[1]]))
            for part in parts
        ]
        unknown = [part.unknown for part in longer if part.unknown is not None]
        return cls(
            torch.cat([part.values for part in longer]),
            torch.cat([part.positions for part in longer]),
            torch.cat([part.valid for part in longer]),
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

    Parameters
    ----------
    tokens : mapping of str to TokenTensors
        One entry per modality.
    labels : Tensor, shape (B,), int64
        Classes.
    extras : mapping of str to Tensor, shape (B, ...)
        Extra fields.
    priorities : Tensor, shape (B,), float64, optional
        Ranks within the class, where the exemplars are of a memory.
    slots : Tensor, shape (B,), int64, optional
        Their slots, where they are of a memory: for `memory.update`.
    """

    tokens: Mapping[str, TokenTensors]
    labels: Tensor
    extras: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    priorities: Tensor | None = None
    slots: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_numpy(cls, batch: TokenBatch) -> "TensorBatch":
        """Wrap the arrays of a token batch without copying.

        Parameters
        ----------
        batch : TokenBatch
            What a memory returned.

        Returns
        -------
        TensorBatch
            Tensors that share the memory of the arrays.
        """
        return cls(
            {name: TokenTensors.from_numpy(tokens) for name, tokens in batch.tokens.items()},
            torch.from_numpy(batch.labels),
            {name: torch.from_numpy(values) for name, values in batch.extras.items()},
            torch.from_numpy(batch.priorities),
            None if batch.slots is None else torch.from_numpy(batch.slots),
        )

    def with_tokens(self, changed: Mapping[str, TokenTensors]) -> Self:
        """Return the batch with some modalities replaced or added.

        Parameters
        ----------
        changed : mapping of str to TokenTensors
            New tokens by modality.

        Returns
        -------
        TensorBatch
            The new tokens; labels, extras and all other modalities are the same.
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

        Returns
        -------
        TensorBatch
            The batch there.
        """
        return self._each(
            lambda tokens: tokens.to(device, non_blocking=non_blocking),
            lambda part: part.to(device, non_blocking=non_blocking),
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

    Parameters
    ----------
    tokens : TokenTensors
        Tokens in any order; values and positions where `valid` is False may be anything.

    Returns
    -------
    TokenTensors
        The kept tokens, in the form in which a memory returns and takes them.
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


def upsampled(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale token pictures up, bicubic; values are rounded and clamped.

    Parameters
    ----------
    values : Tensor, shape (B, K, h, w, 3), uint8
        Pictures.
    size : tuple of int
        Height H and width W that they get. A smaller size than they have would alias.

    Returns
    -------
    Tensor, shape (B, K, H, W, 3), uint8
        Larger pictures; the same ones where the size is theirs.
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
