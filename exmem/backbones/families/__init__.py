"""One file per family of models."""

from exmem.backbones.families.bert import Bert
from exmem.backbones.families.clip import Clip
from exmem.backbones.families.joint import Joint
from exmem.backbones.families.siglip import Siglip
from exmem.backbones.families.vilt import Vilt
from exmem.backbones.families.vit import Vit
from exmem.registry import Registry

__all__ = ["BACKBONES", "Bert", "Clip", "Joint", "Siglip", "Vilt", "Vit"]

BACKBONES: Registry[object] = Registry(
    "backbone", {"bert": Bert, "clip": Clip, "dinov2": Vit, "joint": Joint, "siglip": Siglip, "vilt": Vilt, "vit": Vit}
)
"""Families of backbones by name, for `load_backbone`."""
