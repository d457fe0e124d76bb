"""Attention of chosen queries, from hooks on the query and key projections: no L x L maps."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["AttentionTap", "Captured", "SequenceLayout", "attention_rows", "capture"]


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
    keep : Tensor, shape (B, T), bool
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
    keep: Tensor
    query: slice | None = dataclasses.field(default_factory=lambda: slice(0, 1))
    residual: bool = True


@dataclasses.dataclass(eq=False)
class Captured:
    """Projections of one layer, filled while a model runs.

    Parameters
    ----------
    num_heads : int
        Heads H.
    query, key : Tensor, shape (B, T, D)
        Projected sequences.
    """

    num_heads: int
    query: Tensor | None = None
    key: Tensor | None = None


@contextlib.contextmanager
def capture(taps: Mapping[int, AttentionTap]) -> Iterator[dict[int, Captured]]:
    """Keep the query and key projections of chosen layers of what runs inside the block.

    Parameters
    ----------
    taps : mapping of int to AttentionTap
        Layer -> where to read it.

    Yields
    ------
    dict of int to Captured
        Filled by the last forward pass.
    """
    found = {layer: Captured(tap.num_heads) for layer, tap in taps.items()}

    def keeper(layer: int, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            setattr(found[layer], name, output.detach())

        return keep

    handles = []
    for layer, tap in taps.items():
        handles.append(tap.query.register_forward_hook(keeper(layer, "query")))
        handles.append(tap.key.register_forward_hook(keeper(layer, "key")))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def attention_rows(captured: Captured, rows: slice, keep: Tensor) -> Tensor:
    """Return the attention of some queries over all keys.

    Parameters
    ----------
    captured : Captured
        Projections of a layer.
    rows : slice
        Places of the queries in the sequence, R of them.
    keep : Tensor, shape (B, T), bool
        False for keys that are padding.

    Returns
    -------
    Tensor, shape (B, R, T)
        Softmax attention, mean over the heads; 0 for padding.

    Raises
    ------
    ValueError
        If nothing ran inside the capturing block.

    Notes
    -----
    O(R T D) time, R T numbers per head: with R = 1 about nothing beside the forward pass.
    """
    if captured.query is None or captured.key is None:
        raise ValueError("no forward pass ran while the projections were captured")
    query, key = (
        states.reshape(*states.shape[:2], captured.num_heads, -1).transpose(1, 2)
        for states in (captured.query[:, rows], captured.key)
    )
    logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    logits = logits.masked_fill(~keep[:, None, None, :], -torch.inf)
    return torch.softmax(logits, -1).mean(1)
