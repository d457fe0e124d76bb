"""Whether the models given to a backbone can take sparse tokens: tried out once, instead of trusting names."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exmem.errors import SchemaError
from exmem.tokens.checks import real_number, shown

__all__ = [
    "channel_values",
    "check_max_text",
    "check_text_positions",
    "check_text_tower",
    "check_vision_blocks",
    "position_offset",
]

_TOLERANCE = 1e-4  # of the largest value; float32 sums in another order differ by less than 1e-5


def check_vision_blocks(model: nn.Module, expected: Tensor, sparse: Callable[[], tuple[Tensor, Tensor]]) -> None:
    """Compare what a vision model makes of an image with what its blocks make of all its patches as tokens.

    `expected` is (1, P + L, D); `sparse` returns the tokens after the last block, and after the final norm. SchemaError
    if neither agrees: the model has relative or rotary positions, windows or masking.
    """
    if not _any_close(sparse, expected):
        raise SchemaError(
            f"{type(model).__name__}: its blocks make something else of separate tokens than the model makes of the "
            "image (relative or rotary positions, windows, masking); "
            "use a plain ViT, DeiT, DINOv2 or CLIP vision model"
        )


def position_offset(encoder: nn.Module) -> int:
    """Return the position of the first token: 0 in BERT, behind the padding in the RoBERTa family."""
    table = _position_table(encoder)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def check_max_text(encoder: nn.Module, max_text: int) -> None:
    """Refuse more text tokens than an encoder, or the model that holds it, has positions for (SchemaError)."""
    table = _position_table(encoder)
    if table is not None and max_text > table.num_embeddings - position_offset(encoder):
        raise SchemaError(
            f"max_text must be at most {table.num_embeddings - position_offset(encoder)}, got {max_text}: "
            f"{type(encoder).__name__} has no more positions"
        )


def check_text_positions(encoder: Any, *, offset: int) -> None:
    """Run a text encoder on tokens in reverse, each with its true position: it must make the same of them.

    SchemaError if not: positions are relative or ignored, and dropped tokens would move the rest.
    """
    ids, places = _trial_text(encoder)
    with torch.no_grad():
        forward, backward = (
            encoder(input_ids=ids[:, order], position_ids=places[:, order] + offset).last_hidden_state
            for order in (places[0], places[0].flip(0))
        )
    if not _close(backward.flip(1), forward):
        raise SchemaError(
            f"{type(encoder).__name__}: it does not keep to the positions that it is given, so tokens could not be "
            "dropped; use an encoder of the BERT or RoBERTa family"
        )


def check_text_tower(encoder: Any, sparse: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Compare what an encoder makes of a text with what its blocks make of the tokens in reverse.

    `sparse` takes token ids and positions (1, T) and returns the tokens after the final norm. SchemaError if they
    differ: the encoder has relative positions, or parts besides embeddings, blocks and a final norm.
    """
    ids, places = _trial_text(encoder)
    with torch.no_grad():
        expected = encoder(input_ids=ids).last_hidden_state
    if not _any_close(lambda: (sparse(ids.flip(1), places.flip(1)).flip(1),), expected):
        raise SchemaError(
            f"{type(encoder).__name__}: its blocks make something else of separate tokens than the encoder makes of "
            "the text (relative positions, further parts); use a BERT, RoBERTa, CLIP or SigLIP text model"
        )


def _position_table(encoder: nn.Module) -> nn.Embedding | None:
    for name, module in encoder.named_modules():
        if name.endswith(("position_embeddings", "position_embedding")) and isinstance(module, nn.Embedding):
            return module
    return None


def _trial_text(encoder: Any) -> tuple[Tensor, Tensor]:
    return torch.arange(3, 7)[None] % int(encoder.config.vocab_size), torch.arange(4)[None]


def _any_close(sparse: Callable[[], tuple[Tensor, ...]], expected: Tensor) -> bool:
    with torch.no_grad():
        try:
            return any(_close(actual, expected) for actual in sparse())
        except TypeError:  # blocks that need more than tokens
            return False


def _close(actual: Tensor, expected: Tensor) -> bool:
    if actual.shape != expected.shape:
        return False
    return bool((actual - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def channel_values(values: Sequence[float], what: str) -> Tensor:
    """Return three finite numbers, one a channel, as a tensor; SchemaError for all else."""
    if not isinstance(values, list | tuple | np.ndarray | Tensor) or len(values) != 3:
        raise SchemaError(f"{what} must be three numbers, one per channel, got {shown(values)}")
    numbers = torch.tensor([real_number(value, f"each {what}") for value in values])
    if not numbers.isfinite().all():
        raise SchemaError(f"{what} must be three finite numbers, got {shown(values)}")
    return numbers
