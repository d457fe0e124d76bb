"""Backbones: one file per model family, one small contract."""

from collections.abc import Callable
from typing import Any

from exmem.backbones.base import Backbone
from exmem.backbones.joint import Joint
from exmem.backbones.patches import patchify, unpatchify
from exmem.backbones.stream import Stream
from exmem.backbones.vilt import Vilt
from exmem.errors import SchemaError

__all__ = ["BACKBONES", "Backbone", "Joint", "Stream", "Vilt", "load_backbone", "patchify", "unpatchify"]

BACKBONES: dict[str, Callable[..., Backbone]] = {"joint": Joint.from_pretrained, "vilt": Vilt.from_pretrained}


def load_backbone(kind: str, *names: Any, **options: Any) -> Backbone:
    """Load a backbone by the name of its family.

    Parameters
    ----------
    kind : str
        A key of `BACKBONES`.
    *names : str or path
        Hub names or folders of its weights.
    **options : object
        Its options.

    Returns
    -------
    Backbone
        The backbone.

    Raises
    ------
    SchemaError
        If the family is unknown.
    """
    if kind not in BACKBONES:
        raise SchemaError(f"unknown backbone {kind!r}; choose one of {sorted(BACKBONES)}")
    return BACKBONES[kind](*names, **options)
