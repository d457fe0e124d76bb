"""Augmentation of replayed exemplars."""

from exmem.registry import Registry
from exmem.replay.augment.base import Augmentation
from exmem.replay.augment.colour_jitter import ColourJitter
from exmem.replay.augment.compose import Compose
from exmem.replay.augment.flip import Flip
from exmem.replay.augment.image_exchange import ImageExchange
from exmem.replay.augment.partners import class_partners
from exmem.replay.augment.patch_paste import PatchPaste
from exmem.replay.augment.text_exchange import TextExchange
from exmem.replay.augment.token_dropout import TokenDropout

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
]

AUGMENTATIONS: Registry[Augmentation] = Registry(
    "augmentation",
    {
        "colour_jitter": ColourJitter,
        "flip": Flip,
        "image_exchange": ImageExchange,
        "patch_paste": PatchPaste,
        "text_exchange": TextExchange,
        "token_dropout": TokenDropout,
    },
)
"""Augmentations of a batch that is replayed, by name."""
