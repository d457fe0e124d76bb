"""Backbones: one file per model family, one small contract."""

from exmem.backbones.contract import Backbone
from exmem.backbones.families import BACKBONES, Bert, Clip, Joint, Siglip, Vilt, Vit
from exmem.backbones.hidden import Hidden
from exmem.backbones.load import load_backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "Bert",
    "Clip",
    "Hidden",
    "Joint",
    "Siglip",
    "Vilt",
    "Vit",
    "load_backbone",
]
