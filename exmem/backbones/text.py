"""A text encoder of transformers on sparse tokens: the text towers of CLIP and SigLIP, and the BERT family."""

from typing import Any

import torch
from torch import Tensor, nn

from exmem.backbones.blocks import attention_mask, blocks_of, run_blocks
from exmem.backbones.checks import check_text_tower, position_offset
from exmem.errors import SchemaError

__all__ = ["TextTower"]


class TextTower(nn.Module):
    """A text encoder that takes any of the tokens of a text, each with its true position.

    With `causal`, a token sees only those before it: by position, so that the order of the tokens does not matter.
    SchemaError if the model is not embeddings, blocks and, maybe, a final norm, or cannot take sparse tokens.
    """

    def __init__(self, model: Any, *, causal: bool = False) -> None:
        super().__init__()
        if not hasattr(model, "embeddings") or not blocks_of(model):
            raise SchemaError(f"{type(model).__name__} is no text encoder: expected `embeddings` and a list of blocks")
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # unused, and random where the checkpoint has none
        self.model: Any = model.requires_grad_(False).eval()
        self.blocks = blocks_of(model)  # a plain list: the blocks belong to the model
        self.causal = causal
        self._offset = position_offset(model)
        check_text_tower(model, self._encode)

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.model.config.hidden_size)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Embed token ids (B, T) at their places in the text, from 0: what enters the first block, (B, T, E)."""
        hidden: Tensor = self.model.embeddings(input_ids=ids, position_ids=positions + self._offset)
        return hidden

    def run(self, hidden: Tensor, valid: Tensor, positions: Tensor, blocks: slice) -> Tensor:
        """Run some blocks over states, `valid` and positions of (B, T) tokens."""
        mask = attention_mask(valid)
        if self.causal:
            earlier = positions[:, None, None, :] <= positions[:, None, :, None]
            mask = earlier if mask is None else earlier & mask
        return run_blocks(self.blocks[blocks], hidden, mask)

    def norm(self, hidden: Tensor) -> Tensor:
        """Return hidden states after the final norm, which BERT does not have."""
        normed: Tensor = getattr(self.model, "final_layer_norm", nn.Identity())(hidden)
        return normed

    def _encode(self, ids: Tensor, positions: Tensor) -> Tensor:
        valid = torch.ones_like(ids, dtype=torch.bool)
        return self.norm(self.run(self.embed(ids, positions), valid, positions, slice(None)))
