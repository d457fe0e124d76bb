"""SigLIP (Zhai et al. 2023): two towers, attention pooling instead of a class token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from typing_extensions import override

from exmem.backbones.attention import AttentionTap, SequenceLayout
from exmem.backbones.blocks import attention_bias, attention_mask, attention_tap
from exmem.backbones.families.towers import TwoTowers
from exmem.backbones.hidden import Hidden
from exmem.errors import SchemaError
from exmem.tokens.tensors import TokenTensors

__all__ = ["Siglip"]


class Siglip(TwoTowers):
    """SigLIP on sparse tokens.

    A probe pools the patches by attention: it is the last layer of `attention_taps`, and the only one with a query.
    SigLIP was trained on texts padded to the full length, and reads a text at its last place: places that were dropped,
    or that the text never filled, are filled with padding tokens again, so that stored texts stay sparse. The pooling
    is frozen.

    Parameters
    ----------
    model : Module
        A `SiglipModel` of transformers with attention pooling.
    tokenizer
        Its tokenizer, which has a padding token.
    image_size, trainable_blocks, max_text, mean, std
        See `Backbone`.
    """

    has_class_token = False
    is_causal = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        if not hasattr(getattr(getattr(model, "vision_model", None), "head", None), "attention"):
            raise SchemaError(f"{type(model).__name__} has no attention pooling; use a SiglipModel")
        if tokenizer.pad_token_id is None:
            raise SchemaError(f"{type(tokenizer).__name__} has no padding token; use SigLIP's own tokenizer")
        super().__init__(
            model,
            tokenizer,
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            mean=mean,
            std=std,
        )
        model.vision_model.head = _Pooling(model.vision_model.head)  # in its place, so that its weights are there once

    @property
    @override
    def embedding_dim(self) -> int:
        """Width of the space that both modalities share: the vision model's own."""
        return self.width

    @override
    def embed_image(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Pool the patches; zeros where there is none."""
        if not hidden.shape[1]:
            return hidden.new_zeros(len(hidden), self.embedding_dim)
        image: Tensor = self._pooling(self.vision.norm(hidden), valid)
        return image

    @override
    def embed_patches(self, hidden: Tensor) -> Tensor:
        """Pool each patch alone."""
        return self._pooling.each(self.vision.norm(hidden))

    @override
    def embed_words(self, states: Tensor) -> Tensor:
        """Project each text token as if it were the last."""
        projected: Tensor = self.text.model.head(states)
        return projected

    @override
    def text_sequence(self, text: TokenTensors) -> tuple[Tensor, Tensor, Tensor]:
        """Put padding tokens at all places without a token, up to the full length; a row without any stays empty."""
        shape = len(text.valid), int(self.text.model.config.max_position_embeddings)
        ids = torch.full(shape, int(self.tokenizer.pad_token_id), device=text.valid.device)
        rows, places = text.valid.nonzero(as_tuple=True)
        ids[rows, text.positions[rows, places]] = text.values[rows, places].long()
        return (
            ids,
            text.valid.any(1, keepdim=True).expand(shape),
            torch.arange(shape[1], device=ids.device).expand(shape),
        )

    @override
    def attention_taps(self) -> list[AttentionTap]:
        """Return the projections of the vision blocks, and of the pooling."""
        pooling = self._pooling
        return [*super().attention_taps(), attention_tap(pooling, pooling.num_heads)]

    @override
    def layout(self, trunk: Hidden, layer: int) -> SequenceLayout:
        """Say where image tokens stand: only the pooling has a query, its probe."""
        if layer < len(self.vision.parts.blocks):
            return super().layout(trunk, layer)
        return SequenceLayout(slice(0, None), None, trunk.image.valid, slice(0, 1), residual=False)

    @property
    def _pooling(self) -> "_Pooling":
        pooling: _Pooling = self.vision.model.head  # type: ignore[assignment]
        return pooling

    @override
    def _words_of(self, words: Tensor, text: TokenTensors) -> Tensor:
        return words[torch.arange(len(words), device=words.device)[:, None], text.positions]


class _Pooling(nn.Module):
    """SigLIP's attention pooling with a mask, and with separate projections that hooks can read.

    The attention of transformers is an `nn.MultiheadAttention`, whose packed projections run inside one function.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        packed = head.attention
        self.num_heads = int(packed.num_heads)
        self.probe = head.probe
        width = packed.embed_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        weights, biases = packed.in_proj_weight.detach().chunk(3), packed.in_proj_bias.detach().chunk(3)
        for linear, weight, bias in zip((self.q_proj, self.k_proj, self.v_proj), weights, biases, strict=True):
            linear.load_state_dict({"weight": weight, "bias": bias})
        self.out_proj = packed.out_proj
        self.layernorm, self.mlp = head.layernorm, head.mlp
        self.requires_grad_(False)

    @override
    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Return the pooled patches, (B, D)."""
        probe = self.probe.expand(len(hidden), -1, -1)
        query, key, value = (
            states.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for states in (self.q_proj(probe), self.k_proj(hidden), self.v_proj(hidden))
        )
        bias = attention_bias(attention_mask(valid), hidden.dtype)
        read = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self._after(read.transpose(1, 2).flatten(2))[:, 0]

    def each(self, hidden: Tensor) -> Tensor:
        """Return what pooling each patch alone would give, (B, K, D): attention over one key is 1."""
        return self._after(self.v_proj(hidden))

    def _after(self, read: Tensor) -> Tensor:
        out = self.out_proj(read)
        pooled: Tensor = out + self.mlp(self.layernorm(out))
        return pooled
