"""Transformer blocks of transformers, found and run alike in all families."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exmem.backbones.attention import AttentionTap
from exmem.errors import SchemaError

__all__ = [
    "attention_bias",
    "attention_mask",
    "attention_tap",
    "blocks_of",
    "pooled",
    "projection",
    "run_blocks",
    "tuned_from",
]

_PROJECTIONS = {  # names of the linear layers in the families of transformers
    "query": "query|q_proj",
    "key": "key|k_proj",
    "value": "value|v_proj",
    "output": r"attention\.output\.dense|o_proj|out_proj",
}


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model: its longest list of modules.

    Parameters
    ----------
    model : Module
        A transformer.

    Returns
    -------
    list of Module
        First to last; empty where there is no list.
    """
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def tuned_from(blocks: Sequence[nn.Module], trainable_blocks: int | None) -> int:
    """Return the index of the first tuned block.

    Parameters
    ----------
    blocks : sequence of Module
        Blocks, first to last.
    trainable_blocks : int, optional
        Last blocks that are tuned; all when left out.

    Returns
    -------
    int
        Index from 0.

    Raises
    ------
    SchemaError
        If there are not so many blocks.
    """
    number = len(blocks) if trainable_blocks is None else trainable_blocks
    if not 1 <= number <= len(blocks):
        raise SchemaError(f"trainable_blocks must be in 1..{len(blocks)}, got {number}")
    return len(blocks) - number


def projection(block: nn.Module, kind: str) -> nn.Module:
    """Return a projection of the attention of a block.

    Parameters
    ----------
    block : Module
        A transformer block.
    kind : {"query", "key", "value", "output"}
        Which.

    Returns
    -------
    Module
        The linear layer, or what a tuner put in its place.

    Raises
    ------
    SchemaError
        If there is none, or more than one.
    """
    pattern = re.compile(rf"(^|\.)({_PROJECTIONS[kind]})\Z")
    found: list[nn.Module] = [module for name, module in block.named_modules() if pattern.search(name)]
    if len(found) != 1:
        raise SchemaError(f"{type(block).__name__}: expected one {kind} projection, found {len(found)}")
    return found[0]


def attention_tap(block: nn.Module, num_heads: int) -> AttentionTap:
    """Return the attention projections of a block, as they are now (tuners wrap them).

    Parameters
    ----------
    block : Module
        A transformer block.
    num_heads : int
        Its attention heads.

    Returns
    -------
    AttentionTap
        The projections.
    """
    return AttentionTap(num_heads=num_heads, **{kind: projection(block, kind) for kind in _PROJECTIONS})


def run_blocks(blocks: Sequence[nn.Module], hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Run blocks one after the other.

    Parameters
    ----------
    blocks : sequence of Module
        Transformer blocks.
    hidden : Tensor, shape (B, T, D)
        Hidden states.
    mask : Tensor, shape (B, 1, T or 1, T), bool, or None
        True where a key may be attended to; None when that is everywhere.

    Returns
    -------
    Tensor, shape (B, T, D)
        Hidden states after the last block.
    """
    if not hidden.shape[1]:  # attention of transformers cannot shape what is empty
        return hidden
    bias = attention_bias(mask, hidden.dtype)
    for block in blocks:
        takes_mask = "attention_mask" in inspect.signature(block.forward).parameters
        found: Any = block(hidden, attention_mask=bias) if takes_mask else block(hidden)
        hidden = found[0] if isinstance(found, tuple) else found
    return hidden


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
    valid = torch.cat(keeps, 1)
    return None if bool(valid.all()) else valid[:, None, None, :]


def attention_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn a mask into what is added to the logits of attention, which every implementation of it understands.

    Parameters
    ----------
    mask : Tensor, bool, or None
        True where a key may be attended to; None when that is everywhere.
    dtype : torch.dtype
        dtype of the hidden states.

    Returns
    -------
    Tensor or None
        0 where a key may be attended to, else the least number: with -inf a query that may attend to nothing, such as
        padding, would become NaN.
    """
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def pooled(hidden: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of the kept tokens, zeros where there is none.

    Parameters
    ----------
    hidden : Tensor, shape (B, T, D)
        Tokens.
    valid : Tensor, shape (B, T), bool
        True for a token.

    Returns
    -------
    Tensor, shape (B, D)
        Means.
    """
    weights = valid.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
