"""Attention from hooks on the projections of chosen layers: only the rows that are asked for are computed."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from exmem.errors import InvalidExemplarError

__all__ = ["AttentionTap", "Captured", "SequenceLayout", "Similarity", "attention", "capture", "split_heads"]


class AttentionTap(NamedTuple):
    """Where the attention of one layer can be read: its projections, (B, T, D) -> (B, T, D), D a multiple of the heads.

    The input of `output` is what the heads have read, head after head.
    """

    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module
    num_heads: int


@dataclasses.dataclass(frozen=True, eq=False)
class SequenceLayout:
    """Where tokens stand in the sequence of a layer; `image` or `text` is None in a layer that has none of it.

    `valid` (B, T) is False for padding. `query` is the place whose attention scores the tokens: the class token, or the
    probe of an attention pooling; None in a layer that has neither, where the mean over all queries is taken (a
    choice). `residual` is False for a pooling: its probe is no token that a residual connection carries on.
    """

    image: slice | None
    text: slice | None
    valid: Tensor
    query: slice | None = dataclasses.field(default_factory=lambda: slice(0, 1))
    residual: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Captured:
    """States of one layer's attention, (B, T, D), filled while a model runs.

    `query`, `key` and `value` as projected; `context`, what the heads have read, before the output projection.
    """

    num_heads: int
    states: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def state(self, part: str) -> Tensor:
        """Return a state by its name; InvalidExemplarError if the layer did not run."""
        if part not in self.states:
            raise InvalidExemplarError(
                f"no {part} was captured: the layer did not run; give the batch the modality that it reads"
            )
        return self.states[part]

    def heads(self, part: str) -> Tensor:
        """Return a state head by head, (B, H, T, D / H); see `state`."""
        return split_heads(self.state(part), self.num_heads)


class Similarity(NamedTuple):
    """What a model with a tower for each modality says of texts, whose tokens its image attention never sees.

    `text` (B, T) is the importance of each text token; `text_to_image` (B, T, K) and `image_to_text` (B, K, T) say how
    much a token belongs to each token of the other modality. Any value may stand at padding.
    """

    text: Tensor
    text_to_image: Tensor
    image_to_text: Tensor


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Cut hidden states (B, T, D) into heads, (B, H, T, D / H)."""
    return states.reshape(*states.shape[:2], num_heads, states.shape[2] // num_heads).transpose(1, 2)


@contextlib.contextmanager
def capture(
    taps: Mapping[int, AttentionTap], parts: Sequence[str] = ("query", "key"), *, gradient: bool = False
) -> Iterator[dict[int, Captured]]:
    """Keep states of the attention of chosen layers of what runs inside the block; the last forward pass counts.

    With `gradient`, gradients with respect to the contexts can be asked for: they belong to the graph, which starts at
    the first of them where nothing below is trained, so that frozen weights need no gradient of their own.
    """
    captured = {layer: Captured(tap.num_heads) for layer, tap in taps.items()}
    handles: list[RemovableHandle] = []
    try:
        for layer, tap in taps.items():
            handles.extend(_hook(tap, part, captured[layer].states, gradient=gradient) for part in parts)
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _hook(tap: AttentionTap, part: str, states: dict[str, Tensor], *, gradient: bool) -> RemovableHandle:
    def keep_output(module: nn.Module, inputs: Any, output: Tensor) -> None:
        states[part] = output.detach()

    def keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if gradient and not inputs[0].requires_grad:
            inputs[0].requires_grad_()
        states[part] = inputs[0] if gradient else inputs[0].detach()

    if part == "context":
        return tap.output.register_forward_pre_hook(keep_input)
    projection: nn.Module = getattr(tap, part)
    return projection.register_forward_hook(keep_output)


def attention(captured: Captured, valid: Tensor, rows: slice = slice(None)) -> Tensor:
    """Return the softmax attention of R queries (all when left out) over all keys, (B, H, R, T); 0 for padding.

    `valid` is (B, T). O(R T D) time, R T numbers per head: with R = 1 about nothing beside the forward pass.
    """
    query, key = captured.heads("query")[:, :, rows], captured.heads("key")
    logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if not valid.all():  # the lowest finite number, so that a row without any token stays free of NaN
        logits = logits.masked_fill(~valid[:, None, None, :], torch.finfo(logits.dtype).min)
    return torch.softmax(logits, -1)
