"""What the frozen part of a backbone makes of a batch: hidden states that can be kept and used again."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from exmem.tensors import random_subset

__all__ = ["Stream"]


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Hidden states of a batch: class token(s), then image tokens, then text tokens.

    Parameters
    ----------
    prefix : Tensor, shape (B, P, D)
        Tokens that are always there; the first is the class token. None (P = 0) in a model without one.
    image : Tensor, shape (B, K, D)
        Image tokens.
    image_keep : Tensor, shape (B, K), bool
        True for a token, False for padding.
    image_positions : Tensor, shape (B, K), int64
        Places in the dense image sequence; 0 for padding.
    text : Tensor, shape (B, T, E)
        Text tokens.
    text_keep : Tensor, shape (B, T), bool
        True for a token, False for padding.
    text_positions : Tensor, shape (B, T), int64
        Places in the tokenised text; 0 for padding.
    """

    prefix: Tensor
    image: Tensor
    image_keep: Tensor
    image_positions: Tensor
    text: Tensor
    text_keep: Tensor
    text_positions: Tensor

    def __len__(self) -> int:
        return len(self.prefix)

    def select(self, rows: Tensor) -> "Stream":
        """Return some rows, with no more padding than they need.

        Parameters
        ----------
        rows : Tensor, shape (R,), int64
            Rows of the batch.

        Returns
        -------
        Stream
            Those rows.
        """
        image_keep, text_keep = self.image_keep[rows], self.text_keep[rows]
        image, text = _length(image_keep), _length(text_keep)
        return Stream(
            self.prefix[rows],
            self.image[rows, :image],
            image_keep[:, :image],
            self.image_positions[rows, :image],
            self.text[rows, :text],
            text_keep[:, :text],
            self.text_positions[rows, :text],
        )

    def with_text_of(self, rows: Tensor) -> "Stream":
        """Return the stream with the text tokens of other rows; right where image and text are still separate.

        Parameters
        ----------
        rows : Tensor, shape (B,), int64
            For each row, the row whose text it takes.

        Returns
        -------
        Stream
            The same images with those texts.
        """
        return dataclasses.replace(
            self, text=self.text[rows], text_keep=self.text_keep[rows], text_positions=self.text_positions[rows]
        )

    def thinned(self, ratio: float, *, probability: float, generator: torch.Generator) -> "Stream":
        """Drop a share of the image tokens of some rows at random, at least one of each row stays.

        Parameters
        ----------
        ratio : float
            Share that is dropped, 0..1; rounded.
        probability : float
            Chance of each row, 0..1.
        generator : torch.Generator
            Source of randomness.

        Returns
        -------
        Stream
            The stream with fewer image tokens, which keep their order.
        """
        chosen = torch.rand(len(self), generator=generator) < probability
        counts = self.image_keep.sum(1)
        dropped = (counts * ratio).round().long().minimum(counts - 1).clamp(min=0) * chosen.to(counts.device)
        keep = random_subset(self.image_keep, counts - dropped, generator=generator)
        longest = max(keep.sum(1).tolist(), default=0)
        order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        rows = torch.arange(len(self), device=keep.device)[:, None]
        kept = keep[rows, order]
        return dataclasses.replace(
            self,
            image=self.image[rows, order],
            image_keep=kept,
            image_positions=self.image_positions[rows, order].masked_fill(~kept, 0),
        )

    @classmethod
    def cat(cls, streams: Sequence["Stream"]) -> "Stream":
        """Join batches, padded to the longest.

        Parameters
        ----------
        streams : sequence of Stream
            One or more batches.

        Returns
        -------
        Stream
            All their rows.
        """
        image = max(stream.image.shape[1] for stream in streams)
        text = max(stream.text.shape[1] for stream in streams)
        lengths = {"prefix": None, "image": image, "text": text}
        parts = {}
        for field in dataclasses.fields(cls):
            length = lengths[field.name.split("_")[0]]
            parts[field.name] = torch.cat([_padded(getattr(stream, field.name), length) for stream in streams])
        return cls(**parts)

    def to(self, target: torch.device | torch.dtype | str) -> "Stream":
        """Return the stream on another device, or its hidden states in another dtype.

        Parameters
        ----------
        target : torch.device, torch.dtype or str
            A device, or a floating dtype.

        Returns
        -------
        Stream
            The same tokens.
        """
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(target, torch.dtype):
            return Stream(
                **{name: part.to(target) if part.is_floating_point() else part for name, part in parts.items()}
            )
        return Stream(**{name: part.to(target) for name, part in parts.items()})


def _length(keep: Tensor) -> int:
    used = keep.any(0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


def _padded(part: Tensor, length: int | None) -> Tensor:
    if length is None or part.shape[1] == length:
        return part
    missing = length - part.shape[1]
    return pad(part, (0, 0, 0, missing) if part.ndim == 3 else (0, missing))
