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
    """Where the attention of one layer can be read.

    Parameters
    ----------
    query : Module
        The query projection, (B, T, D) -> (B, T, D).
    key : Module
        The key projection.
    value : Module
        The value projection.
    output : Module
        The output projection; its input is what the heads have read, (B, T, D), head after head.
    num_heads : int
        Heads H; D is a multiple of it.
    """

    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module
    num_heads: int


@dataclasses.dataclass(frozen=True, eq=False)
class SequenceLayout:
    """Where tokens stand in the sequence of a layer.

    Parameters
    ----------
    image : slice or None
        Image tokens; None in a layer that has none.
    text : slice or None
        Text tokens; None in a layer that has none.
    valid : Tensor, shape (B, T), bool
        True for a token, False for padding.
    query : slice or None
        The query whose attention scores the tokens: the class token, or the probe of an attention pooling; None in a
        layer that has neither, where the mean over all queries is taken (a choice).
    residual : bool
        Whether queries are tokens of the same sequence, which a residual connection carries on; False for an attention
        pooling, whose probe is no token.
    """

    image: slice | None
    text: slice | None
    valid: Tensor
    query: slice | None = dataclasses.field(default_factory=lambda: slice(0, 1))
    residual: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Captured:
    """Hidden states of one layer's attention, filled while a model runs.

    Parameters
    ----------
    num_heads : int
        Heads H.
    states : dict of str to Tensor, shape (B, T, D)
        `query`, `key` and `value` as projected; `context`, what the heads have read, before the output projection.
    """

    num_heads: int
    states: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def state(self, part: str) -> Tensor:
        """Return one of the states.

        Parameters
        ----------
        part : str
            Its name.

        Returns
        -------
        Tensor, shape (B, T, D)
            The state.

        Raises
        ------
        InvalidExemplarError
            If the layer did not run.
        """
        if part not in self.states:
            raise InvalidExemplarError(
                f"no {part} was captured: the layer did not run; give the batch the modality that it reads"
            )
        return self.states[part]

    def heads(self, part: str) -> Tensor:
        """Return one of the states, head by head; see `state`.

        Parameters
        ----------
        part : str
            Its name.

        Returns
        -------
        Tensor, shape (B, H, T, D / H)
            The state of each head.
        """
        return split_heads(self.state(part), self.num_heads)


class Similarity(NamedTuple):
    """What a model with one tower for each modality says of texts, whose tokens its image attention never sees.

    Parameters
    ----------
    text : Tensor, shape (B, T)
        Importance of each text token; any value for padding.
    text_to_image : Tensor, shape (B, T, K)
        How much each text token belongs to each image token.
    image_to_text : Tensor, shape (B, K, T)
        How much each image token belongs to each text token.
    """

    text: Tensor
    text_to_image: Tensor
    image_to_text: Tensor


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Cut hidden states into heads.

    Parameters
    ----------
    states : Tensor, shape (B, T, D)
        Hidden states, head after head.
    num_heads : int
        Heads H.

    Returns
    -------
    Tensor, shape (B, H, T, D / H)
        The state of each head.
    """
    return states.reshape(*states.shape[:2], num_heads, states.shape[2] // num_heads).transpose(1, 2)


@contextlib.contextmanager
def capture(
    taps: Mapping[int, AttentionTap], parts: Sequence[str] = ("query", "key"), *, gradient: bool = False
) -> Iterator[dict[int, Captured]]:
    """Keep hidden states of the attention of chosen layers of what runs inside the block.

    Parameters
    ----------
    taps : mapping of int to AttentionTap
        Layer -> where to read it.
    parts : sequence of str
        What to keep: `query`, `key`, `value`, `context`.
    gradient : bool
        Whether gradients with respect to the contexts will be asked for. They then belong to the graph, which starts
        at the first of them where nothing below is trained: frozen weights need no gradient of their own.

    Yields
    ------
    dict of int to Captured
        Filled by the last forward pass.
    """
    found = {layer: Captured(tap.num_heads) for layer, tap in taps.items()}
    handles: list[RemovableHandle] = []
    try:
        for layer, tap in taps.items():
            handles.extend(_hook(tap, part, found[layer].states, gradient=gradient) for part in parts)
        yield found
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
    """Return the attention of some queries over all keys.

    Parameters
    ----------
    captured : Captured
        Queries and keys of a layer.
    valid : Tensor, shape (B, T), bool
        False for keys that are padding.
    rows : slice
        Places of the queries in the sequence, R of them; all when left out.

    Returns
    -------
    Tensor, shape (B, H, R, T)
        Softmax attention of each head; 0 for padding.

    Notes
    -----
    O(R T D) time, R T numbers per head: with R = 1 about nothing beside the forward pass.
    """
    query, key = captured.heads("query")[:, :, rows], captured.heads("key")
    logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if not valid.all():  # the lowest finite number, so that a row without any token stays free of NaN
        logits = logits.masked_fill(~valid[:, None, None, :], torch.finfo(logits.dtype).min)
    return torch.softmax(logits, -1)
