"""Backbones: one file per model family, one small contract."""

import inspect
from collections.abc import Callable
from typing import Any

from exmem.backbones.base import Backbone
from exmem.backbones.bert import Bert
from exmem.backbones.clip import Clip
from exmem.backbones.joint import Joint
from exmem.backbones.patches import patchify
from exmem.backbones.siglip import Siglip
from exmem.backbones.stream import Stream
from exmem.backbones.vilt import Vilt
from exmem.backbones.vit import Vit
from exmem.errors import SchemaError

__all__ = [
    "BACKBONES",
    "Backbone",
    "Bert",
    "Clip",
    "Joint",
    "Siglip",
    "Stream",
    "Vilt",
    "Vit",
    "load_backbone",
    "patchify",
]

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "bert": Bert.from_pretrained,
    "clip": Clip.from_pretrained,
    "dinov2": Vit.from_pretrained,
    "joint": Joint.from_pretrained,
    "siglip": Siglip.from_pretrained,
    "vilt": Vilt.from_pretrained,
    "vit": Vit.from_pretrained,
}


def load_backbone(kind: str, *names: Any, **options: Any) -> Backbone:
    """Load a backbone by the name of its family.

    Parameters
    ----------
    kind : str
        A key of `BACKBONES`.
    *names : str or path
        Hub names or folders of its weights: vision model and text encoder for `joint`, one name for the others.
    **options : object
        Its options; all families take `image_size`, `trainable_blocks` and `max_text`.

    Returns
    -------
    Backbone
        The backbone.

    Raises
    ------
    SchemaError
        If the family or an option is unknown, or the number of names is not the family's.
    """
    if kind not in BACKBONES:
        raise SchemaError(f"unknown backbone {kind!r}; choose one of {sorted(BACKBONES)}")
    load = BACKBONES[kind]
    parameters = inspect.signature(load).parameters.values()
    wanted = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    if len(names) != len(wanted):
        raise SchemaError(f"backbone {kind!r} takes {len(wanted)} hub names or folders {wanted}, got {len(names)}")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SchemaError(f"backbone {kind!r} has no option {unknown}; it has {sorted(known)}")
    return load(*names, **options)
