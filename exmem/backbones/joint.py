"""One stream of image and text out of any ViT-family vision model and any BERT-family text encoder."""

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from exmem.backbones.base import Backbone, attention_mask, patchify, pooled
from exmem.backbones.checks import check_text_positions, check_vision_blocks, position_offset
from exmem.backbones.loading import pixel_statistics, pretrained
from exmem.backbones.stream import Stream
from exmem.backbones.vision import VisionParts
from exmem.errors import SchemaError
from exmem.masking.attention import AttentionTap, SequenceLayout
from exmem.tensors import TensorBatch

__all__ = ["Joint"]


class Joint(Backbone):
    """Image tokens run through the lower vision blocks, texts through the text encoder; both are frozen.

    The text states are projected to the width of the vision model, and the last vision blocks run over class token,
    image tokens and text tokens together; these are tuned. Choices of ours: the projection starts as the identity where
    the widths agree (else orthogonal), text states are brought to the scale of image tokens by a layer norm, and a
    learned vector marks them as text.

    Parameters
    ----------
    vision : Module
        A ViT-family vision model of transformers with a class token (ViT, DeiT, DINOv2, CLIP vision).
    text : Module
        A BERT-family encoder of transformers.
    tokenizer : object
        Its tokenizer.
    image_size : int
        Side of the pictures in pixels.
    trainable_blocks : int
        Last vision blocks that run over both modalities and are tuned.
    max_text : int
        Most text tokens, special ones included.
    mean, std : sequence of float
        Normalisation of the pixels.

    Raises
    ------
    SchemaError
        If the vision model has fewer blocks or no class token, or one of the models cannot take sparse tokens.
    """

    base_positions: Tensor

    def __init__(
        self,
        vision: nn.Module,
        text: Any,
        tokenizer: Any,
        *,
        image_size: int = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        parts = VisionParts.of(vision)
        if not 1 <= trainable_blocks <= len(parts.blocks):
            raise SchemaError(f"trainable_blocks must be in 1..{len(parts.blocks)}, got {trainable_blocks}")
        super().__init__(
            image_size=image_size,
            patch=parts.patch,
            max_text=max_text,
            tokenizer=tokenizer,
            width=parts.width,
            mean=mean,
            std=std,
        )
        for tower in (vision, text):
            if getattr(tower, "pooler", None) is not None:
                tower.pooler = None  # unused, and random where the checkpoint has none
        self.vision, self.text_encoder = vision, text
        self._parts = parts
        self.first_trainable = len(parts.blocks) - trainable_blocks
        self.requires_grad_(False)
        self.eval()
        base = parts.position_table(image_size)
        self.num_prefix = base.shape[1] - self.grid[0] * self.grid[1]
        if self.num_prefix < 1:
            raise SchemaError(f"{type(vision).__name__} has no class token; use a vision model that has one")
        self.register_buffer("base_positions", base, persistent=False)
        check_vision_blocks(vision, *self._trial())
        self._text_offset = position_offset(text)
        check_text_positions(text, offset=self._text_offset)
        self.text_in = _TextIn(int(text.config.hidden_size), parts.width, scale=self._image_scale())

    @classmethod
    def from_pretrained(
        cls,
        vision: str | os.PathLike[str],
        text: str | os.PathLike[str],
        *,
        image_size: int = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
    ) -> "Joint":
        """Load both towers from hub names or local folders.

        Parameters
        ----------
        vision : str or path
            The vision model.
        text : str or path
            The text encoder and its tokenizer.
        image_size : int
            Side of the pictures in pixels.
        trainable_blocks : int
            Last vision blocks that run over both modalities and are tuned.
        max_text : int
            Most text tokens, special ones included.

        Returns
        -------
        Joint
            The backbone; pixels are normalised as the vision model's own preprocessing says, else as for ImageNet.
        """
        from transformers import AutoModel, AutoTokenizer

        tower: Any = pretrained(AutoModel, vision, dtype=torch.float32)
        mean, std = pixel_statistics(vision)
        return cls(
            getattr(tower, "vision_model", tower),
            pretrained(AutoModel, text, dtype=torch.float32),
            pretrained(AutoTokenizer, text),
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            mean=mean,
            std=std,
        )

    def embed(self, batch: TensorBatch, *, gradient: bool = False) -> Stream:
        """Run the lower vision blocks and the text encoder; see `Backbone.embed`."""
        with torch.set_grad_enabled(gradient):
            image, text = self.modality(batch, "image"), self.modality(batch, "text")
            hidden = self._embed_image(image.values, image.positions, image.keep)
            prefix_keep = image.keep.new_ones(len(batch), self.num_prefix)
            mask = attention_mask(prefix_keep, image.keep)
            for block in self._parts.blocks[: self.first_trainable]:
                hidden = _run(block, hidden, mask)
            states = hidden.new_zeros(len(batch), text.keep.shape[1], self.text_in.norm.normalized_shape[0])
            if text.keep.any():
                rows = text.keep.any(1)  # an encoder cannot attend to nothing
                states[rows] = self.text_encoder(
                    input_ids=text.values[rows].long(),
                    attention_mask=text.keep[rows].long(),
                    position_ids=text.positions[rows] + self._text_offset,
                ).last_hidden_state
        return Stream(
            hidden[:, : self.num_prefix],
            hidden[:, self.num_prefix :],
            image.keep,
            image.positions,
            states,
            text.keep,
            text.positions,
        )

    def encode(self, stream: Stream) -> Tensor:
        """Run the last vision blocks over both modalities; see `Backbone.encode`."""
        text = self.text_in(stream.text)
        prefix_keep = stream.image_keep.new_ones(len(stream), self.num_prefix)
        mask = attention_mask(prefix_keep, stream.image_keep, stream.text_keep)
        hidden = torch.cat([stream.prefix, stream.image, text], 1)
        for block in self.trainable_blocks():
            hidden = _run(block, hidden, mask)
        hidden = self._parts.norm(hidden)
        image, words = torch.split(hidden[:, self.num_prefix :], [stream.image.shape[1], text.shape[1]], 1)
        return torch.cat([hidden[:, 0], pooled(image, stream.image_keep), pooled(words, stream.text_keep)], 1)

    @property
    def num_frozen_blocks(self) -> int:
        """Vision blocks that see no text."""
        return self.first_trainable

    @property
    def text_is_separate(self) -> bool:
        """True: text enters in the tuned blocks."""
        return True

    def trainable_blocks(self) -> list[nn.Module]:
        """Return the last vision blocks."""
        return list(self._parts.blocks[self.first_trainable :])

    def trainable_extras(self) -> list[str]:
        """Return the text projection."""
        return ["text_in"]

    def attention_taps(self) -> list[AttentionTap]:
        """Return the projections of all vision blocks."""
        return self._parts.attention_taps()

    def layout(self, stream: Stream, layer: int) -> SequenceLayout:
        """Say where tokens stand: text only in the trainable blocks; see `Backbone.layout`."""
        keeps = [stream.image_keep.new_ones(len(stream), self.num_prefix), stream.image_keep]
        first = self.num_prefix + stream.image.shape[1]
        image = slice(self.num_prefix, first)
        if layer < self.first_trainable:
            return SequenceLayout(image, None, torch.cat(keeps, 1))
        return SequenceLayout(image, slice(first, None), torch.cat([*keeps, stream.text_keep], 1))

    def _embed_image(self, values: Tensor, positions: Tensor, keep: Tensor) -> Tensor:
        """Project patches, add the embedding of their true positions, put the class token first."""
        conv = self._parts.projection
        patches = linear(self.normalise(values), conv.weight.flatten(1))  # the bias is part of base_positions
        table = self.base_positions[0, self.num_prefix :]
        image = patches + table[positions] * keep.unsqueeze(-1)
        prefix = self.base_positions[:, : self.num_prefix].expand(len(values), -1, -1)
        hidden: Tensor = self._parts.before_blocks(torch.cat([prefix, image], 1))
        return hidden

    def _trial(self) -> tuple[Tensor, Callable[[], tuple[Tensor, Tensor]]]:
        """Return a picture, and what runs the blocks on its patches."""
        side, patch = self.image_size, self.patch
        picture = torch.randint(0, 256, (1, side, side, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        values = torch.from_numpy(patchify(picture.numpy(), patch))
        positions = torch.arange(values.shape[1])[None]

        def sparse() -> tuple[Tensor, Tensor]:
            hidden = self._embed_image(values, positions, torch.ones_like(positions, dtype=torch.bool))
            for block in self._parts.blocks:
                hidden = _run(block, hidden, None)
            return hidden, self._parts.norm(hidden)

        return ((picture / 255 - self.pixel_mean) / self.pixel_std).permute(0, 3, 1, 2), sparse

    def _image_scale(self) -> float:
        """Return the standard deviation of image tokens where text enters, on a grey picture."""
        with torch.no_grad():
            hidden = self._parts.before_blocks(self.base_positions)
            for block in self._parts.blocks[: self.first_trainable]:
                hidden = _run(block, hidden, None)
        return float(hidden[:, self.num_prefix :].std())


class _TextIn(nn.Module):
    """Bring text states to the width and scale of image tokens and mark them as text."""

    def __init__(self, text_width: int, width: int, *, scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(text_width)
        self.projection = nn.Linear(text_width, width)
        self.kind = nn.Parameter(torch.zeros(width))
        nn.init.constant_(self.norm.weight, scale)
        nn.init.zeros_(self.projection.bias)
        if text_width == width:
            nn.init.eye_(self.projection.weight)
        else:
            nn.init.orthogonal_(self.projection.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, states: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.norm(states))
        return projected + self.kind


def _run(block: nn.Module, hidden: Tensor, mask: Tensor | None) -> Tensor:
    found = block(hidden, attention_mask=mask) if "attention_mask" in _parameters(block) else block(hidden)
    out: Tensor = found[0] if isinstance(found, tuple) else found
    return out


def _parameters(block: nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(block.forward).parameters)
