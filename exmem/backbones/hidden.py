"""Hidden tokens: what the frozen part of a backbone makes of a batch."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from exmem.tokens.tensors import TensorBatch, TokenTensors

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
