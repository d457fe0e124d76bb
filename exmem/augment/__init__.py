"""Augmentation of replayed exemplars."""

import dataclasses
from typing import Any

from exmem.augment.base import Augmentation
from exmem.augment.colour_jitter import ColourJitter
from exmem.augment.compose import Compose
from exmem.augment.flip import Flip
from exmem.augment.image_exchange import ImageExchange
from exmem.augment.partners import class_partners
from exmem.augment.patch_paste import PatchPaste
from exmem.augment.text_exchange import TextExchange
from exmem.augment.token_dropout import TokenDropout
from exmem.errors import SchemaError

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "ColourJitter",
    "Compose",
    "Flip",
    "ImageExchange",
    "PatchPaste",
    "TextExchange",
    "TokenDropout",
    "class_partners",
    "get_augmentation",
]

AUGMENTATIONS: dict[str, Any] = {
    "colour_jitter": ColourJitter,
    "flip": Flip,
    "image_exchange": ImageExchange,
    "patch_paste": PatchPaste,
    "text_exchange": TextExchange,
    "token_dropout": TokenDropout,
}


def get_augmentation(name: str, **options: Any) -> Augmentation:
    """Make an augmentation by name.

    Parameters
    ----------
    name : str
        A key of `AUGMENTATIONS`.
    **options : object
        Its options.

    Returns
    -------
    Augmentation
        The augmentation.

    Raises
    ------
    SchemaError
        If the name or an option is unknown, or an option is out of range.
    """
    if name not in AUGMENTATIONS:
        raise SchemaError(f"unknown augmentation {name!r}; choose one of {sorted(AUGMENTATIONS)}")
    known = [field.name for field in dataclasses.fields(AUGMENTATIONS[name])]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SchemaError(f"{name} has no options {unknown}; known are {known}")
    augmentation: Augmentation = AUGMENTATIONS[name](**options)
    return augmentation
