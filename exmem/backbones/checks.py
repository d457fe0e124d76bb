"""Whether the models given to a backbone can take sparse tokens: tried out once, instead of trusting names."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from exmem.errors import SchemaError

__all__ = ["check_text_positions", "check_vision_blocks", "position_offset"]

_TOLERANCE = 1e-4  # of the largest value; float32 sums in another order differ by less than 1e-5


def check_vision_blocks(model: nn.Module, pixels: Tensor, sparse: Callable[[], tuple[Tensor, Tensor]]) -> None:
    """Compare what a vision model makes of a picture with what its blocks make of all its patches as tokens.

    Parameters
    ----------
    model : Module
        The vision model.
    pixels : Tensor, shape (1, C, H, W)
        The picture.
    sparse : callable
        Returns the tokens after the last block, and after the final norm.

    Raises
    ------
    SchemaError
        If they differ: the model has relative or rotary positions, windows or masking.
    """
    known = inspect.signature(model.forward).parameters
    options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
    with torch.no_grad():
        expected = model(pixels, **options).last_hidden_state
        try:
            same = any(_close(found, expected) for found in sparse())
        except TypeError:  # blocks that need more than tokens
            same = False
    if not same:
        raise SchemaError(
            f"{type(model).__name__}: its blocks make something else of separate tokens than the model makes of the "
            "picture (relative or rotary positions, windows, masking); "
            "use a plain ViT, DeiT, DINOv2 or CLIP vision model"
        )


def position_offset(encoder: nn.Module) -> int:
    """Return the position of the first token: 0 in BERT, behind the padding in the RoBERTa family.

    Parameters
    ----------
    encoder : Module
        A text encoder of transformers.

    Returns
    -------
    int
        What is added to positions from 0.
    """
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def check_text_positions(encoder: Any, *, offset: int) -> None:
    """Run a text encoder on tokens in reverse, each with its true position: it must make the same of them.

    Parameters
    ----------
    encoder : Module
        A text encoder of transformers.
    offset : int
        Position of the first token.

    Raises
    ------
    SchemaError
        If it makes something else of them: positions are relative or ignored, and dropped tokens would move the rest.
    """
    ids = torch.arange(3, 7) % int(encoder.config.vocab_size)
    places = torch.arange(4) + offset
    with torch.no_grad():
        forward, backward = (
            encoder(input_ids=ids[order][None], position_ids=places[order][None]).last_hidden_state[0]
            for order in (torch.arange(4), torch.arange(4).flip(0))
        )
    if not _close(backward.flip(0), forward):
        raise SchemaError(
            f"{type(encoder).__name__}: it does not keep to the positions that it is given, so tokens could not be "
            "dropped; use an encoder of the BERT or RoBERTa family"
        )


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
