"""One sequence of image and text out of any ViT-family vision model and any BERT-family text encoder."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from exmem.backbones.attention import SequenceLayout
from exmem.backbones.blocks import attention_mask, pooled, run_blocks
from exmem.backbones.checks import check_text_positions, position_offset
from exmem.backbones.hidden import Hidden
from exmem.backbones.loading import pixel_statistics, pretrained
from exmem.backbones.vision import VisionBackbone
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["Joint"]


class Joint(VisionBackbone):
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
    tokenizer, image_size
        See `Backbone`.
    trainable_blocks : int
        Last vision blocks, which run over both modalities and are tuned.
    max_text, mean, std
        See `Backbone`.
    """

    def __init__(
        self,
        vision: nn.Module,
        text: Any,
        tokenizer: Any,
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(
            vision,
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            tokenizer=tokenizer,
            mean=mean,
            std=std,
            encoder=text,
        )
        if getattr(text, "pooler", None) is not None:
            text.pooler = None  # unused, and random where the checkpoint has none
        self.text_encoder: Any = text.requires_grad_(False).eval()
        self._text_offset = position_offset(text)
        check_text_positions(text, offset=self._text_offset)
        self.text_in: _TextIn = _TextIn(int(text.config.hidden_size), self.width, scale=self._image_scale())

    @classmethod
    def from_pretrained(
        cls,
        vision: str | os.PathLike[str],
        text: str | os.PathLike[str],
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
    ) -> "Joint":
        """Load both towers from hub names or local folders.

        Parameters
        ----------
        vision, text : str or path
            The vision model; the text encoder with its tokenizer.
        image_size, trainable_blocks, max_text
            As for the class.
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

    @override
    def embed(self, batch: TensorBatch, *, gradient: bool = False, until: int | None = None) -> Hidden:
        with torch.set_grad_enabled(gradient):
            prefix, image = self.embed_frozen(batch, gradient=gradient, until=until)
            text = self.modality(batch, "text")
            states = prefix.new_zeros(len(batch), text.valid.shape[1], self.text_in.norm.normalized_shape[0])
            if text.valid.any():
                rows = text.valid.any(1)  # an encoder cannot attend to nothing
                states[rows] = self.text_encoder(
                    input_ids=text.values[rows].long(),
                    attention_mask=text.valid[rows].long(),
                    position_ids=text.positions[rows] + self._text_offset,
                ).last_hidden_state
            if gradient:
                states.requires_grad_()
        return Hidden(prefix, image, TokenTensors(states, text.positions, text.valid))

    @override
    def encode(self, trunk: Hidden) -> Tensor:
        text = self.text_in(trunk.text.values)
        first = self.vision.num_prefix
        mask = attention_mask(trunk.image.valid.new_ones(len(trunk), first), trunk.image.valid, trunk.text.valid)
        hidden = torch.cat([trunk.prefix, self.retouched(trunk.image), text], 1)
        hidden = self.vision.norm(run_blocks(self.trainable_blocks(), hidden, mask))
        image, words = torch.split(hidden[:, first:], [trunk.image.values.shape[1], text.shape[1]], 1)
        means = {"image": pooled(image, trunk.image.valid), "text": pooled(words, trunk.text.valid)}
        return self.joined(hidden[:, 0], **means)

    @override
    def trainable_extras(self) -> list[str]:
        """Return the text projection."""
        return ["text_in"]

    @override
    def layout(self, trunk: Hidden, layer: int) -> SequenceLayout:
        """Say where tokens stand: text only in the trainable blocks."""
        of_image = super().layout(trunk, layer)
        if layer < self.first_trainable:
            return of_image
        first = of_image.valid.shape[1]
        image = slice(self.vision.num_prefix, first)
        return SequenceLayout(image, slice(first, None), torch.cat([of_image.valid, trunk.text.valid], 1))

    def _image_scale(self) -> float:
        """Return the standard deviation of image tokens where text enters, on a grey image.

        It is rounded, so that the backbone is the same whatever the threads and the machine add up.
        """
        with torch.no_grad():
            hidden = run_blocks(self.vision.parts.blocks[: self.first_trainable], self.vision.grey(), None)
        return float(f"{float(hidden[:, self.vision.num_prefix :].std()):.3g}")


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

    @override
    def forward(self, states: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.norm(states))
        return projected + self.kind
