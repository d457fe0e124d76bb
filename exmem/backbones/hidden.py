"""Hidden tokens: what the frozen part of a backbone makes of a batch."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from exmem.tokens.tensors import TensorBatch, TokenTensors, packed

__all__ = ["Hidden"]


@dataclasses.dataclass(frozen=True, eq=False)
class Hidden:
    """States of B examples where the trunk ends: prefix tokens, and token tensors as they stand everywhere else.

    Parameters
    ----------
    prefix : Tensor, shape (B, P, D)
        Class token and others without a place in image or text.
    image : TokenTensors
        Image tokens; values (B, K, D).
    text : TokenTensors
        Text tokens; values (B, T, E), whose width E may be another one.
    """

    prefix: Tensor
    image: TokenTensors
    text: TokenTensors

    def __len__(self) -> int:
        return len(self.prefix)

    def select(self, rows: Tensor) -> "Hidden":
        """Return some rows, without the padding that none of them needs.

        Parameters
        ----------
        rows : Tensor, shape (R,), int64
            Their indices, or (B,) bool.
        """
        image, text = self.image.select(rows).trimmed(), self.text.select(rows).trimmed()
        return Hidden(self.prefix[rows], image, text)

    def pruned(self, keep: Tensor, *, fused_by: Tensor | None = None) -> "Hidden":
        """Drop image tokens, or fuse those of a row that are dropped into one.

        The fused token is their mean, weighted by their scores (evenly where none is above 0), and stands at the place
        of the best of them (Liang et al. 2022, section 3.3). Doing it again changes nothing.

        Parameters
        ----------
        keep : Tensor, shape (B, L), bool
            True at the positions whose tokens stay.
        fused_by : Tensor, shape (B, L), float, optional
            Scores of the positions; what is dropped is gone when left out.
        """
        image = self.image
        kept, values = image.valid & keep.gather(1, image.positions), image.values
        lost = image.valid & ~kept
        if fused_by is not None and bool(lost.any()):
            scores = fused_by.gather(1, image.positions).to(values.dtype)
            weights = scores.clamp(min=0) * lost
            weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, lost.to(values.dtype))
            mean = (values * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True).clamp(min=1e-12)
            rows = lost.any(1).nonzero()[:, 0]
            best = scores.masked_fill(~lost, -torch.inf).argmax(1)[rows]
            values, kept = values.clone(), kept.clone()
            values[rows, best], kept[rows, best] = mean[rows], True
        return dataclasses.replace(self, image=packed(TokenTensors(values, image.positions, kept)))

    def augmented(self, augmentation: Callable[[TensorBatch], TensorBatch], labels: Tensor) -> "Hidden":
        """Return what an augmentation of token batches makes of these tokens.

        Parameters
        ----------
        augmentation : callable
            It sees the modalities `prefix`, `image` and `text`.
        labels : Tensor, shape (B,), int64
            Classes of the rows.
        """
        tokens = {"prefix": TokenTensors.dense(self.prefix), "image": self.image, "text": self.text}
        changed = augmentation(TensorBatch(tokens, labels)).tokens
        return Hidden(changed["prefix"].values, changed["image"], changed["text"])

    @classmethod
    def cat(cls, parts: Sequence["Hidden"]) -> "Hidden":
        """Put batches together, the shorter sequences padded.

        Parameters
        ----------
        parts : sequence of Hidden
            One or more.
        """
        prefix = torch.cat([batch.prefix for batch in parts])
        image, text = ([getattr(batch, name) for batch in parts] for name in ("image", "text"))
        return cls(prefix, TokenTensors.cat(image), TokenTensors.cat(text))

    def to(self, target: torch.device | torch.dtype | str) -> "Hidden":
        """Return the same on another device, or its states in another dtype.

        Parameters
        ----------
        target : torch.device, torch.dtype or str
            The device or dtype.
        """
        if not isinstance(target, torch.dtype):
            return Hidden(self.prefix.to(target), self.image.to(target), self.text.to(target))
        image, text = (
            dataclasses.replace(tokens, values=tokens.values.to(target)) for tokens in (self.image, self.text)
        )
        return Hidden(self.prefix.to(target), image, text)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, as a file holds them."""
        modalities = {"image": self.image, "text": self.text}
        named = {f"{name}.{field}": getattr(tokens, field) for name, tokens in modalities.items() for field in _FIELDS}
        return {"prefix": self.prefix, **named}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Hidden":
        """Return the hidden tokens that `tensors` named.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            What `tensors` returned.
        """
        modalities = [TokenTensors(*(tensors[f"{name}.{field}"] for field in _FIELDS)) for name in ("image", "text")]
        return cls(tensors["prefix"], *modalities)


_FIELDS = ("values", "positions", "valid")
