"""ViT, DeiT and DINOv2: the backbones that see images only."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from exmem.backbones.attention import AttentionTap, SequenceLayout
from exmem.backbones.blocks import pooled, tuned_from
from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.backbones.loading import pixel_statistics, pretrained
from exmem.backbones.vision import VisionParts, VisionTower
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["Vit"]


class Vit(Backbone):
    """A vision model alone; texts are ignored. One class for `vit` and `dinov2`, which differ in their weights only.

    Parameters
    ----------
    vision : Module
        A ViT-family vision model of transformers with a class token (ViT, DeiT, DINOv2, CLIP vision).
    image_size, trainable_blocks
        See `Backbone`.
    max_text : int
        Not used: every family takes the same options.
    mean, std
        See `Backbone`.
    """

    def __init__(
        self,
        vision: nn.Module,
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 0,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        parts = VisionParts.of(vision)
        first = tuned_from(parts.blocks, trainable_blocks)
        super().__init__(
            image_size=image_size,
            patch=parts.patch,
            max_text=max_text,
            tokenizer=None,
            width=parts.width,
            mean=mean,
            std=std,
        )
        self.vision = VisionTower(vision, size=self.image_sides)
        self.first_trainable = first
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 0,
    ) -> "Vit":
        """Load weights from a hub name or a local folder.

        Parameters
        ----------
        name : str or path
            Hub name or local folder; of CLIP the vision model is taken.
        image_size, trainable_blocks, max_text
            As for the class.
        """
        from transformers import AutoModel

        model: Any = pretrained(AutoModel, name, dtype=torch.float32)
        mean, std = pixel_statistics(name)
        return cls(
            getattr(model, "vision_model", model),
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            mean=mean,
            std=std,
        )

    @override
    def embed(self, batch: TensorBatch, *, gradient: bool = False) -> Hidden:
        with torch.set_grad_enabled(gradient):
            image, text = self.modality(batch, "image"), self.no_tokens("text", len(batch))
            hidden = self.vision.embed(self.normalise(image.values), image)
            if gradient:
                hidden.requires_grad_()
            hidden = self.vision.run(hidden, image.valid, slice(self.first_trainable))
        first = self.vision.num_prefix
        return Hidden(
            hidden[:, :first],
            TokenTensors(hidden[:, first:], image.positions, image.valid),
            TokenTensors(hidden.new_zeros(len(batch), 0, self.width), text.positions, text.valid),
        )

    @override
    def encode(self, trunk: Hidden) -> Tensor:
        hidden = torch.cat([trunk.prefix, trunk.image.values], 1)
        hidden = self.vision.run(hidden, trunk.image.valid, slice(self.first_trainable, None))
        hidden = self.vision.parts.norm(hidden)
        return torch.cat([hidden[:, 0], pooled(hidden[:, self.vision.num_prefix :], trunk.image.valid)], 1)

    @property
    @override
    def modalities(self) -> tuple[str, ...]:
        return ("image",)

    @property
    @override
    def has_mask_token(self) -> bool:
        """Whether the model has one: DINOv2 does, ViT where it was made with `use_mask_token`."""
        return self.vision.has_mask_token

    @property
    @override
    def num_frozen_blocks(self) -> int:
        return self.first_trainable

    @property
    @override
    def first_tuned_layer(self) -> int:
        return self.first_trainable

    @property
    @override
    def text_is_separate(self) -> bool:
        return True

    @override
    def trainable_blocks(self) -> list[nn.Module]:
        return self.vision.parts.blocks[self.first_trainable :]

    @override
    def trainable_extras(self) -> list[str]:
        return []

    @override
    def attention_taps(self) -> list[AttentionTap]:
        return self.vision.attention_taps()

    @override
    def layout(self, trunk: Hidden, layer: int) -> SequenceLayout:
        first = self.vision.num_prefix
        valid = torch.cat([trunk.image.valid.new_ones(len(trunk), first), trunk.image.valid], 1)
        return SequenceLayout(slice(first, None), None, valid)
