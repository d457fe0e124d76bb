"""Recipes: how an exemplar is made of an image and a text, and turned back into tokens at replay. Data, not code.

A `Recipe` names its parts: image form, scorer, keep rule, text rule, codec, fill, extras. It goes through JSON and
YAML, has a name in `RECIPES` or a file of its own, and is recorded in the memory's root. Bound to a backbone
(`BoundRecipe`) it makes exemplars; a memory alone says how they are restored (`Restorer`): images become patches of the
frame that the backbone saw, whatever was stored of them, and a plain CNN can see them too.
"""

from exmem.recipes.bound import BoundRecipe
from exmem.recipes.fills import FILLS, Fill, FillContext
from exmem.recipes.forms import FORMS, Form
from exmem.recipes.frame import Frame
from exmem.recipes.plain import PlainImages
from exmem.recipes.recipe import EXTRAS, RECIPES, Recipe
from exmem.recipes.restorer import Restorer
from exmem.recipes.scoring import Masked, Masking

__all__ = [
    "EXTRAS",
    "FILLS",
    "FORMS",
    "RECIPES",
    "BoundRecipe",
    "Fill",
    "FillContext",
    "Form",
    "Frame",
    "Masked",
    "Masking",
    "PlainImages",
    "Recipe",
    "Restorer",
]
