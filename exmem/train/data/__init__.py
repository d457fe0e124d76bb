"""Data for the trainer: images, texts and classes, in the forms that people have them in."""

from exmem.train.data.examples import ImageText
from exmem.train.data.folder import load_data
from exmem.train.data.reading import Columns

__all__ = ["Columns", "ImageText", "load_data"]
