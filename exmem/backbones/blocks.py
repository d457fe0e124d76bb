"""Transformer blocks of transformers, found and run alike in all families."""

import contextlib
import contextvars
import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from exmem.backbones.attention import AttentionTap
from exmem.errors import SchemaError
from exmem.tokens.checks import whole_number

__all__ = [
    "attention_bias",
    "attention_mask",
    "attention_tap",
    "blocks_of",
    "pooled",
    "projection",
    "run_blocks",
    "running_blocks",
    "scaled",
    "tuned_from",
]

_PROJECTIONS = {  # names of the linear layers in the families of transformers
    "query": "query|q_proj",
    "key": "key|k_proj",
    "value": "value|v_proj",
    "output": r"attention\.output\.dense|o_proj|out_proj",
}


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model, first to last: its longest list of modules; empty where there is no list."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def tuned_from(blocks: Sequence[nn.Module], trainable_blocks: int | None) -> int:
    """Return the index of the first tuned block, 0 for None (all); SchemaError if there are not so many blocks."""
    number = len(blocks) if trainable_blocks is None else trainable_blocks
    return len(blocks) - whole_number(number, "trainable_blocks", least=1, most=len(blocks))


def projection(block: nn.Module, kind: str) -> nn.Module:
    """Return the query, key, value or output layer of a block's attention, or what a tuner put in its place.

    SchemaError if there is none, or more than one.
    """
    pattern = re.compile(rf"(^|\.)({_PROJECTIONS[kind]})\Z")
    projections: list[nn.Module] = [module for name, module in block.named_modules() if pattern.search(name)]
    if len(projections) != 1:
        raise SchemaError(f"{type(block).__name__}: expected one {kind} projection, found {len(projections)}")
    return projections[0]


def attention_tap(block: nn.Module, num_heads: int) -> AttentionTap:
    """Return the attention projections of a block, as they are now (tuners wrap them)."""
    return AttentionTap(num_heads=num_heads, **{kind: projection(block, kind) for kind in _PROJECTIONS})


class _Way(NamedTuple):
    """How blocks are run."""

    dtype: torch.dtype = torch.float32
    compiled: bool = False


_PLAIN = _Way()
_COMPILED: dict[type[nn.Module], Any] = {}
_WAY: contextvars.ContextVar[_Way] = contextvars.ContextVar("way", default=_PLAIN)


@contextlib.contextmanager
def running_blocks(*, dtype: torch.dtype = torch.float32, compiled: bool = False) -> Iterator[None]:
    """Have `run_blocks` compute in a dtype for a while, or by compiled blocks; weights and states stay what they are.

    Hooks that are put on a block after it was compiled are not called.
    """
    token = _WAY.set(_Way(dtype, compiled))
    try:
        yield
    finally:
        _WAY.reset(token)


def run_blocks(blocks: Sequence[nn.Module], hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Run blocks one after the other over hidden states (B, T, D).

    The mask, (B, 1, T or 1, T) bool, is True where a key may be attended to; None when that is everywhere. SchemaError
    if there is one and a block takes none: it would attend to padding.
    """
    if not hidden.shape[1]:  # attention of transformers cannot shape what is empty
        return hidden
    way = _WAY.get()
    low = way.dtype != torch.float32
    # Without its cache of cast weights, which would keep those of a pass without gradients for one with them.
    lower = torch.autocast(hidden.device.type, way.dtype, cache_enabled=False) if low else contextlib.nullcontext()
    with lower:
        found = _run(blocks, hidden, attention_bias(mask, way.dtype if low else hidden.dtype), compiled=way.compiled)
    return found.to(hidden.dtype)


def _run(blocks: Sequence[nn.Module], hidden: Tensor, bias: Tensor | None, *, compiled: bool) -> Tensor:
    for block in blocks:
        takes_mask = "attention_mask" in inspect.signature(block.forward).parameters
        if bias is not None and not takes_mask:
            raise SchemaError(
                f"{type(block).__name__} takes no attention mask, and would attend to padding; install transformers "
                "5.18 or newer"
            )
        call: Any = functools.partial(_compiled(type(block)), block) if compiled else block
        output: Any = call(hidden, attention_mask=bias) if takes_mask else call(hidden)
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden


def _compiled(kind: type[nn.Module]) -> Any:
    """Compile blocks of a kind once; what is returned takes the block."""
    if kind not in _COMPILED:
        _COMPILED[kind] = torch.compile(kind.forward, dynamic=True)
    return _COMPILED[kind]


def attention_mask(*keeps: Tensor) -> Tensor | None:
    """Join parts (B, T) bool of a sequence into its key padding mask (B, 1, 1, T); None when nothing is padding."""
    valid = torch.cat(keeps, 1)
    return None if bool(valid.all()) else valid[:, None, None, :]


def attention_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn a mask into what is added to the logits of attention, which every implementation of it understands.

    0 where a key may be attended to, else the least number: with -inf a query that may attend to nothing, such as
    padding, would become NaN.
    """
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def scaled(encoded: Tensor) -> Tensor:
    """Scale features (B, D) of a backbone to mean 0 and variance 1 each: what classifiers see (a choice)."""
    return layer_norm(encoded, encoded.shape[-1:])


def pooled(hidden: Tensor, valid: Tensor) -> Tensor:
    """Return the mean (B, D) of the valid ones of tokens (B, T, D), zeros where there is none."""
    weights = valid.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
