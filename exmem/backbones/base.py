"""What every backbone can do, and what all of them share."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exmem.backbones.stream import Stream
from exmem.errors import InvalidExemplarError, SchemaError
from exmem.masking.attention import AttentionTap, SequenceLayout
from exmem.masking.base import Similarity
from exmem.tensors import TensorBatch, TokenTensors
from exmem.tokens import PaddedTokens, TokenBatch, TokenSpec

__all__ = ["Backbone", "attention_mask", "patchify", "pooled", "unpatchify"]


def patchify(images: NDArray[np.uint8], patch: int) -> NDArray[np.uint8]:
    """Cut pictures into patches, row by row.

    Parameters
    ----------
    images : ndarray, shape (B, H, W, 3), uint8
        Pictures whose sides are multiples of `patch`.
    patch : int
        Side of a patch.

    Returns
    -------
    ndarray, shape (B, L, patch, patch, 3), uint8
        L = (H / patch) * (W / patch) patches.

    Raises
    ------
    InvalidExemplarError
        If a side is no multiple of `patch`.
    """
    rows, height, width, channels = images.shape
    if height % patch or width % patch:
        raise InvalidExemplarError(f"expected sides that are multiples of {patch}, got {height} x {width}")
    tiles = images.reshape(rows, height // patch, patch, width // patch, patch, channels)
    return np.ascontiguousarray(tiles.transpose(0, 1, 3, 2, 4, 5)).reshape(rows, -1, patch, patch, channels)


def unpatchify(patches: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Put patches together; the inverse of `patchify`.

    Parameters
    ----------
    patches : ndarray, shape (B, L, p, p, 3), uint8
        Patches, row by row.
    grid : tuple of int
        Rows and columns of patches.

    Returns
    -------
    ndarray, shape (B, H, W, 3), uint8
        Pictures.
    """
    count, _, patch, _, channels = patches.shape
    tiles = patches.reshape(count, *grid, patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(tiles).reshape(count, grid[0] * patch, grid[1] * patch, channels)


class Backbone(nn.Module, abc.ABC):
    """A transformer over one sequence: class token(s), image tokens, text tokens.

    `embed` runs the frozen part; its result does not change while the backbone is tuned and can be kept. `encode` runs
    the trainable blocks. Tokens may be any subset of the dense sequences, in any order, with true positions.

    Parameters
    ----------
    image_size : int
        Side of the square pictures in pixels.
    patch : int
        Side of a patch.
    max_text : int
        Most text tokens, special ones included.
    tokenizer : object
        A tokenizer of transformers.
    width : int
        Width D of the hidden states.
    mean, std : sequence of float
        Normalisation of the pixels, one value per channel, for values 0..1.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        patch: int,
        max_text: int,
        tokenizer: Any,
        width: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise SchemaError(f"image_size {image_size} is no multiple of the patch side {patch}; choose one that is")
        self.image_size, self.patch, self.max_text, self.width = image_size, patch, max_text, width
        self.tokenizer = tokenizer
        self.register_buffer("pixel_mean", torch.tensor(mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std), persistent=False)

    @property
    def feature_dim(self) -> int:
        """Length of a feature: class token, mean image token, mean text token."""
        return 3 * self.width

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.image_size // self.patch
        return side, side

    def token_specs(self) -> dict[str, TokenSpec]:
        """Return how the tokens of this backbone look, by modality."""
        image = TokenSpec(positions=self.grid[0] * self.grid[1], shape=(self.patch, self.patch, 3), codec="patch_jpeg")
        return {"image": image, "text": TokenSpec(positions=self.max_text, dtype="int32")}

    def tokens(self, images: NDArray[np.uint8], texts: Sequence[str]) -> TokenBatch:
        """Cut pictures into patches and texts into tokens; all are kept, special text tokens too.

        Parameters
        ----------
        images : ndarray, shape (B, image_size, image_size, 3), uint8
            Pictures.
        texts : sequence of str
            One text per picture; cut after `max_text` tokens.

        Returns
        -------
        TokenBatch
            Modalities `image` and `text`; labels are 0.
        """
        patches = patchify(images, self.patch)
        positions = np.broadcast_to(np.arange(patches.shape[1]), patches.shape[:2]).copy()
        image = PaddedTokens(patches, positions, np.ones(patches.shape[:2], np.bool_))
        return TokenBatch({"image": image, "text": self.tokenize(texts)}, np.zeros(len(images), np.int64))

    def tokenize(self, texts: Sequence[str]) -> PaddedTokens:
        """Cut texts into tokens.

        Parameters
        ----------
        texts : sequence of str
            Texts; cut after `max_text` tokens.

        Returns
        -------
        PaddedTokens
            Token ids, int32.
        """
        found = self.tokenizer(list(texts), truncation=True, max_length=self.max_text)["input_ids"] if texts else []
        longest = max(map(len, found), default=0)
        ids = np.zeros((len(found), longest), np.int32)
        keep = np.zeros((len(found), longest), np.bool_)
        for row, tokens in enumerate(found):
            ids[row, : len(tokens)], keep[row, : len(tokens)] = tokens, True
        return PaddedTokens(ids, np.where(keep, np.arange(longest), 0), keep)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens."""
        return frozenset(self.tokenizer.all_special_ids)

    @abc.abstractmethod
    def embed(self, batch: TensorBatch, *, gradient: bool = False) -> Stream:
        """Run the frozen part.

        Parameters
        ----------
        batch : TensorBatch
            Modalities `image` and `text`; one that is missing counts as empty.
        gradient : bool
            Whether gradients are recorded, for scorers that need them; its weights stay as they are either way.

        Returns
        -------
        Stream
            Hidden states.
        """

    @abc.abstractmethod
    def encode(self, stream: Stream) -> Tensor:
        """Run the trainable blocks.

        Parameters
        ----------
        stream : Stream
            What `embed` returned.

        Returns
        -------
        Tensor, shape (B, feature_dim)
            Features: class token, mean image token and mean text token after the final norm; zeros for a modality
            without tokens (a choice).
        """

    def forward(self, batch: TensorBatch) -> Tensor:
        """Embed and encode.

        Parameters
        ----------
        batch : TensorBatch
            Modalities `image` and `text`.

        Returns
        -------
        Tensor, shape (B, feature_dim)
            Features.
        """
        return self.encode(self.embed(batch))

    @property
    @abc.abstractmethod
    def num_frozen_blocks(self) -> int:
        """Blocks that `embed` runs."""

    @property
    @abc.abstractmethod
    def text_is_separate(self) -> bool:
        """Whether `embed` keeps image and text apart, so that texts of streams may be exchanged."""

    @abc.abstractmethod
    def trainable_blocks(self) -> list[nn.Module]:
        """Return the blocks that `encode` runs."""

    @abc.abstractmethod
    def attention_taps(self) -> list[AttentionTap]:
        """Return the query and key projections of every block, first to last."""

    @abc.abstractmethod
    def layout(self, stream: Stream, layer: int) -> SequenceLayout:
        """Say where the tokens of a stream stand in the sequence of a layer.

        Parameters
        ----------
        stream : Stream
            What `embed` returned.
        layer : int
            Index of the block, from 0.

        Returns
        -------
        SequenceLayout
            Places of image and text tokens.
        """

    def similarity(self, batch: TensorBatch, stream: Stream) -> Similarity | None:
        """Score texts by their similarity to images.

        Parameters
        ----------
        batch : TensorBatch
            What was embedded.
        stream : Stream
            What `embed` returned for it.

        Returns
        -------
        Similarity or None
            None where image and text share the last layer, whose attention says more.
        """
        return None

    def lora_targets(self) -> list[str]:
        """Return the names of the linear layers that LoRA adapts: query and value of the trainable blocks."""
        blocks = {id(block) for block in self.trainable_blocks()}
        names = []
        for name, module in self.named_modules():
            if id(module) in blocks:
                inner = (child for child, found in module.named_modules() if isinstance(found, nn.Linear))
                names += [f"{name}.{child}" for child in inner if child.rpartition(".")[2] in _QUERY_AND_VALUE]
        return names

    @abc.abstractmethod
    def trainable_extras(self) -> list[str]:
        """Return the names of the modules that are trained in full beside LoRA."""

    def normalise(self, patches: Tensor) -> Tensor:
        """Turn uint8 patches into what the patch projection takes.

        Parameters
        ----------
        patches : Tensor, shape (B, K, p, p, 3), uint8
            Patches.

        Returns
        -------
        Tensor, shape (B, K, 3 * p * p), float32
            Normalised values, channels first.
        """
        values = (patches.to(self.pixel_mean.dtype) / 255 - self.pixel_mean) / self.pixel_std
        return values.permute(0, 1, 4, 2, 3).flatten(2)

    def modality(self, batch: TensorBatch, name: str) -> TokenTensors:
        """Return a modality of a batch on this backbone's device, empty when it is missing.

        Parameters
        ----------
        batch : TensorBatch
            A batch.
        name : str
            `image` or `text`.

        Returns
        -------
        TokenTensors
            Its tokens.
        """
        device = self.pixel_mean.device
        if name in batch.tokens:
            return batch.tokens[name].to(device)
        shape = (len(batch), 0, self.patch, self.patch, 3) if name == "image" else (len(batch), 0)
        dtype = torch.uint8 if name == "image" else torch.int32
        none = torch.zeros(len(batch), 0, dtype=torch.int64, device=device)
        return TokenTensors(torch.zeros(shape, dtype=dtype, device=device), none, none.bool())


_QUERY_AND_VALUE = frozenset({"q_proj", "v_proj", "query", "value"})


def pooled(hidden: Tensor, keep: Tensor) -> Tensor:
    """Return the mean of the kept tokens, zeros where there is none.

    Parameters
    ----------
    hidden : Tensor, shape (B, T, D)
        Tokens.
    keep : Tensor, shape (B, T), bool
        True for a token.

    Returns
    -------
    Tensor, shape (B, D)
        Means.
    """
    weights = keep.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def attention_mask(*keeps: Tensor) -> Tensor | None:
    """Return the key padding mask of a sequence of parts.

    Parameters
    ----------
    *keeps : Tensor, shape (B, T), bool
        True for a token, part by part.

    Returns
    -------
    Tensor, shape (B, 1, 1, T), bool, or None
        True where a token may be attended to; None when that is everywhere.
    """
    keep = torch.cat(keeps, 1)
    return None if bool(keep.all()) else keep[:, None, None, :]
