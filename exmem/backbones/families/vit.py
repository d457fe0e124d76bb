"""ViT, DeiT and DINOv2: the backbones that see images only."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from exmem.backbones.blocks import pooled
from exmem.backbones.hidden import Hidden
from exmem.backbones.loading import pixel_statistics, pretrained
from exmem.backbones.vision import VisionBackbone
from exmem.tokens.tensors import TensorBatch

__all__ = ["Vit"]


class Vit(VisionBackbone):
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
        super().__init__(
            vision,
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            tokenizer=None,
            mean=mean,
            std=std,
        )

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
    def embed(self, batch: TensorBatch, *, gradient: bool = False, until: int | None = None) -> Hidden:
        with torch.set_grad_enabled(gradient):
            prefix, image = self.embed_frozen(batch, gradient=gradient, until=until)
        text = self.no_tokens("text", len(batch))
        return Hidden(prefix, image, dataclasses.replace(text, values=prefix.new_zeros(len(batch), 0, self.width)))

    @override
    def encode(self, trunk: Hidden) -> Tensor:
        hidden = torch.cat([trunk.prefix, self.retouched(trunk.image)], 1)
        hidden = self.vision.run(hidden, trunk.image.valid, slice(self.first_trainable, None))
        hidden = self.vision.norm(hidden)
        return torch.cat([hidden[:, 0], pooled(hidden[:, self.vision.num_prefix :], trunk.image.valid)], 1)

    @property
    @override
    def modalities(self) -> tuple[str, ...]:
        return ("image",)
