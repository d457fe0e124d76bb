"""Recipes: how an exemplar is made of a picture and a text, and turned back into tokens at replay."""

from exmem.recipes.base import Recipe
from exmem.recipes.foveated import FoveatedPicture, FoveatedTokens
from exmem.recipes.masked import MaskedTokens
from exmem.recipes.masking import Masked, Masking
from exmem.recipes.rate_aware import RateAware
from exmem.recipes.text import TextOnly
from exmem.recipes.whole import WholePicture

__all__ = [
    "FoveatedPicture",
    "FoveatedTokens",
    "Masked",
    "MaskedTokens",
    "Masking",
    "RateAware",
    "Recipe",
    "TextOnly",
    "WholePicture",
]
