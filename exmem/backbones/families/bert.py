"""BERT (Devlin et al. 2019) and its family: the backbone that sees texts only."""

import os
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from exmem.backbones.attention import AttentionTap, SequenceLayout
from exmem.backbones.blocks import attention_tap, pooled, tuned_from
from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.backbones.loading import pretrained
from exmem.backbones.text import TextTower
from exmem.errors import SchemaError
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["Bert"]


class Bert(Backbone):
    """A text encoder alone; images are ignored. The class token is the text's `[CLS]`, stored or not.

    Parameters
    ----------
    text : Module
        A BERT-family encoder of transformers (BERT, RoBERTa).
    tokenizer
        Its tokenizer, which has a class token.
    image_size : int or tuple of int
        Size of the images that come with the texts. Nothing depends on it: every family takes the same options.
    trainable_blocks, max_text
        See `Backbone`.
    """

    def __init__(
        self,
        text: Any,
        tokenizer: Any,
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
    ) -> None:
        if tokenizer.cls_token_id is None:
            raise SchemaError(f"{type(tokenizer).__name__} has no class token; use a tokenizer of the BERT family")
        tower = TextTower(text)
        first = tuned_from(tower.blocks, trainable_blocks)
        super().__init__(
            image_size=image_size,
            patch=1,
            max_text=max_text,
            tokenizer=tokenizer,
            width=tower.width,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            encoder=text,
        )
        self.text: TextTower = tower
        self.first_trainable = first
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
    ) -> "Bert":
        """Load weights and tokenizer from a hub name or a local folder.

        Parameters
        ----------
        name : str or path
            Hub name or local folder.
        image_size, trainable_blocks, max_text
            As for the class.
        """
        from transformers import AutoModel, AutoTokenizer

        return cls(
            pretrained(AutoModel, name, dtype=torch.float32),
            pretrained(AutoTokenizer, name),
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
        )

    @override
    def embed(self, batch: TensorBatch, *, gradient: bool = False, until: int | None = None) -> Hidden:
        self.no_layers(batch, until)
        with torch.set_grad_enabled(gradient):
            image, text = self.no_tokens("image", len(batch)), self.modality(batch, "text")
            # The [CLS] is the prefix, whether it was stored or not.
            valid = text.valid & (text.positions > 0)
            first = valid.new_ones(len(batch), 1)
            ids = torch.cat([first * int(self.tokenizer.cls_token_id), text.values.long()], 1)
            positions = torch.cat([torch.zeros_like(ids[:, :1]), text.positions], 1)
            hidden = self.text.embed(ids, positions)
            if gradient:
                hidden.requires_grad_()
            hidden = self.text.run(hidden, torch.cat([first, valid], 1), positions, slice(self.first_trainable))
        nothing = hidden.new_zeros(len(batch), 0, self.width)
        return Hidden(
            hidden[:, :1],
            TokenTensors(nothing, image.positions, image.valid),
            TokenTensors(hidden[:, 1:], text.positions, valid),
        )

    @override
    def encode(self, trunk: Hidden) -> Tensor:
        hidden, valid = torch.cat([trunk.prefix, trunk.text.values], 1), self._valid(trunk)
        positions = torch.cat([trunk.text.positions.new_zeros(len(trunk), 1), trunk.text.positions], 1)
        hidden = self.text.norm(self.text.run(hidden, valid, positions, slice(self.first_trainable, None)))
        return torch.cat([hidden[:, 0], pooled(hidden[:, 1:], trunk.text.valid)], 1)

    @property
    @override
    def modalities(self) -> tuple[str, ...]:
        return ("text",)

    @property
    @override
    def text_is_separate(self) -> bool:
        """True without frozen blocks: in every block the class token reads the text."""
        return self.first_trainable == 0

    @override
    def trainable_blocks(self) -> list[nn.Module]:
        return self.text.blocks[self.first_trainable :]

    @override
    def attention_taps(self) -> list[AttentionTap]:
        heads = int(self.text.model.config.num_attention_heads)
        return [attention_tap(block, heads) for block in self.text.blocks]

    @override
    def layout(self, trunk: Hidden, layer: int) -> SequenceLayout:
        return SequenceLayout(None, slice(1, None), self._valid(trunk))

    def _valid(self, trunk: Hidden) -> Tensor:
        return torch.cat([trunk.text.valid.new_ones(len(trunk), 1), trunk.text.valid], 1)
