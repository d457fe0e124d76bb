"""Data for the trainer: images with texts and classes, in a folder as people have them."""

from exmem.train.data.examples import ImageText
from exmem.train.data.folder import load_imagefolder

__all__ = ["ImageText", "load_imagefolder"]
