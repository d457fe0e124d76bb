"""A backbone by the name of its family."""

import inspect
import os
from collections.abc import Callable
from typing import Any

import torch

from exmem.backbones.contract import Backbone
from exmem.backbones.families import BACKBONES
from exmem.backbones.packaged import dinov2_small, minilm
from exmem.errors import SchemaError

__all__ = ["load_backbone"]

_PACKAGED = {
    "bert": (minilm,),
    "dinov2": (dinov2_small,),
    "joint": (dinov2_small, minilm),
    "vit": (dinov2_small,),
}


def load_backbone(
    family: str,
    *names: str | os.PathLike[str] | None,
    modalities: tuple[str, ...] = (),
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Backbone:
    """Load a backbone by the name of its family.

    Parameters
    ----------
    family : str
        A key of `BACKBONES`.
    *names : str or path, optional
        Hub names or folders of its weights: vision model and text encoder for `joint`, one name for the others. For
        one that is left out or None, the packaged DINOv2-S or MiniLM stands in where it fits.
    modalities : tuple of str
        What it sees of an example; all that its family sees when empty.
    seed : int
        Seed of weights that a checkpoint lacks.
    progress : callable, optional
        Told what is being fetched.
    **options : object
        Options of the family; all take `image_size`, `trainable_blocks` and `max_text`.

    Raises
    ------
    SchemaError
        If the family, a modality or an option is unknown, or a name is missing or one too many.
    """
    load = BACKBONES[family].from_pretrained
    parameters = inspect.signature(load).parameters.values()
    wanted = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    packaged = _PACKAGED.get(family, ())
    if len(names) > len(wanted) or (None in (*names, *[None] * (len(wanted) - len(names))) and not packaged):
        given = [str(name) for name in names if name is not None]
        raise SchemaError(f"backbone {family!r} takes {len(wanted)} hub names or folders {wanted}, got {given}")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SchemaError(f"backbone {family!r} has no option {unknown}; it has {sorted(known)}")
    padded = [*names, *[None] * (len(wanted) - len(names))]
    sources = [packaged[at](progress=progress) if name is None else name for at, name in enumerate(padded)]
    torch.manual_seed(seed)
    backbone: Backbone = load(*sources, **options)
    if modalities:
        backbone.restrict(*modalities)
    return backbone
