"""ViLT (Kim et al. 2021): the backbone of the paper."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear
from typing_extensions import override

from exmem.backbones.attention import AttentionTap, SequenceLayout
from exmem.backbones.blocks import attention_mask, attention_tap, blocks_of, pooled, run_blocks, tuned_from
from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.backbones.loading import pixel_statistics, pretrained
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["Vilt"]


class Vilt(Backbone):
    """One transformer over text and image tokens from its first block on.

    The class token is the text's `[CLS]`, which ViLT pools; its image class token comes second, and both are always
    there. Positions are added before tokens are gathered, so sparse image tokens keep their true places
    (`ViltEmbeddings.visual_embed` derives the grid from a pixel mask and draws padding at random).

    Parameters
    ----------
    model : Module
        A `ViltModel` of transformers.
    tokenizer, image_size
        See `Backbone`.
    trainable_blocks : int, optional
        All blocks are tuned when left out.
    max_text, mean, std
        See `Backbone`.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        image_size: int | tuple[int, int] = 384,
        trainable_blocks: int | None = None,
        max_text: int = 40,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        config: Any = model.config
        first = tuned_from(blocks_of(model), trainable_blocks)
        super().__init__(
            image_size=image_size,
            patch=int(config.patch_size),
            max_text=max_text,
            tokenizer=tokenizer,
            width=int(config.hidden_size),
            mean=mean,
            std=std,
            encoder=model,
        )
        self.model: Any = model
        self.first_trainable = first
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        image_size: int | tuple[int, int] = 384,
        trainable_blocks: int | None = None,
        max_text: int = 40,
    ) -> "Vilt":
        """Load weights and tokenizer from a hub name such as `dandelin/vilt-b32-mlm`, or from a local folder.

        Parameters
        ----------
        name : str or path
            Hub name or local folder.
        image_size, trainable_blocks, max_text
            As for the class.
        """
        from transformers import AutoTokenizer, ViltModel

        mean, std = pixel_statistics(name)
        return cls(
            pretrained(ViltModel, name, add_pooling_layer=False, dtype=torch.float32),
            pretrained(AutoTokenizer, name),
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            mean=mean,
            std=std,
        )

    @override
    def embed(self, batch: TensorBatch, *, gradient: bool = False, until: int | None = None) -> Hidden:
        self.no_layers(batch, until)
        with torch.set_grad_enabled(gradient):
            image, text = self.modality(batch, "image"), self.modality(batch, "text")
            embeddings = self.model.embeddings
            projection = embeddings.patch_embeddings.projection
            patches = linear(self.normalise(image.values), projection.weight.flatten(1), projection.bias)
            hidden = patches + self.patch_places(image)
            # The [CLS] of the text is part of the prefix, whether it was stored or not.
            words_valid = text.valid & (text.positions > 0)
            words = self._embed_text(text.values.long(), text.positions)
            prefix = torch.cat([self._embed_class(len(batch)), self._image_class(len(batch))], 1)
            sequence = torch.cat([prefix, hidden, words], 1)
            mask = attention_mask(image.valid.new_ones(len(batch), 2), image.valid, words_valid)
            if gradient:
                sequence.requires_grad_()
            sequence = run_blocks(self.model.encoder.layer[: self.first_trainable], sequence, mask)
        prefix, hidden, words = torch.split(sequence, [2, hidden.shape[1], words.shape[1]], 1)
        return Hidden(
            prefix,
            TokenTensors(hidden, image.positions, image.valid),
            TokenTensors(words, text.positions, words_valid),
        )

    @override
    def encode(self, trunk: Hidden) -> Tensor:
        sequence = torch.cat([trunk.prefix, self.retouched(trunk.image), trunk.text.values], 1)
        mask = attention_mask(trunk.image.valid.new_ones(len(trunk), 2), trunk.image.valid, trunk.text.valid)
        sequence = self.model.layernorm(run_blocks(self.trainable_blocks(), sequence, mask))
        image, words = torch.split(sequence[:, 2:], [trunk.image.values.shape[1], trunk.text.values.shape[1]], 1)
        means = {"image": pooled(image, trunk.image.valid), "text": pooled(words, trunk.text.valid)}
        return self.joined(sequence[:, 0], **means)

    @property
    @override
    def text_is_separate(self) -> bool:
        """True without frozen blocks: every block mixes image and text."""
        return self.first_trainable == 0

    @override
    def trainable_blocks(self) -> list[nn.Module]:
        return list(self.model.encoder.layer[self.first_trainable :])

    @override
    def final_norms(self) -> list[nn.Module]:
        return [self.model.layernorm]

    @override
    def attention_taps(self) -> list[AttentionTap]:
        heads = int(self.model.config.num_attention_heads)
        return [attention_tap(layer, heads) for layer in self.model.encoder.layer]

    @override
    def layout(self, trunk: Hidden, layer: int) -> SequenceLayout:
        first = 2 + trunk.image.values.shape[1]
        valid = torch.cat([trunk.image.valid.new_ones(len(trunk), 2), trunk.image.valid, trunk.text.valid], 1)
        return SequenceLayout(slice(2, first), slice(first, None), valid)

    @override
    def patch_projection(self) -> nn.Module | None:
        projection: nn.Module = self.model.embeddings.patch_embeddings.projection
        return projection if self.first_trainable == 0 else None

    @override
    def patch_places(self, image: TokenTensors) -> Tensor:
        kind: Tensor = self.model.embeddings.token_type_embeddings.weight[1]
        return self._positions()[image.positions] + kind

    def _positions(self) -> Tensor:
        """Position embeddings of the patches, interpolated as `visual_embed` does."""
        table = self.model.embeddings.position_embeddings[:, 1:]
        side = round(table.shape[1] ** 0.5)
        spatial = table.transpose(1, 2).unflatten(2, (side, side))
        return interpolate(spatial, size=self.grid, mode="bilinear", align_corners=True).flatten(2)[0].T

    def _embed_text(self, ids: Tensor, positions: Tensor) -> Tensor:
        text: Any = self.model.embeddings.text_embeddings
        kind = text.token_type_embeddings.weight[0]
        states = text.LayerNorm(text.word_embeddings(ids) + text.position_embeddings(positions) + kind)
        marked: Tensor = states + self.model.embeddings.token_type_embeddings.weight[0]
        return marked

    def _embed_class(self, rows: int) -> Tensor:
        ids = torch.full((rows, 1), int(self.tokenizer.cls_token_id), device=self.pixel_mean.device)
        return self._embed_text(ids, torch.zeros_like(ids))

    def _image_class(self, rows: int) -> Tensor:
        embeddings = self.model.embeddings
        token: Tensor = (
            embeddings.cls_token + embeddings.position_embeddings[:, :1] + embeddings.token_type_embeddings.weight[1]
        )
        return token.expand(rows, -1, -1)
