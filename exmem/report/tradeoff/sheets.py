"""Exemplars of each recipe, of the same examples of a data set, as a page shows them side by side."""

from typing import NamedTuple

from exmem.report.view.sheet import Sheet

__all__ = ["RecipeSheet"]


class RecipeSheet(NamedTuple):
    """What a recipe stores of some examples of a data set."""

    data: str
    recipe: str
    sheet: Sheet
