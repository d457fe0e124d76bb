"""Recipes: how an exemplar is made of a picture and a text, and turned back into tokens at replay."""

from exmem.recipes.base import Recipe
from exmem.recipes.masked import MaskedTokens
from exmem.recipes.whole import WholePicture

__all__ = ["MaskedTokens", "Recipe", "WholePicture"]
