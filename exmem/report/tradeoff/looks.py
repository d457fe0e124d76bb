"""How a recipe looks in every image and on the page: colour, marker, and a line by the level of what it stores."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["DASHES", "LEVELS", "Look", "looks_of"]

# Okabe & Ito 2008, "Color Universal Design", without their yellow, which is too pale on white.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1c2330")
_MARKERS = ("circle", "square", "triangle", "diamond", "down")  # 7 and 5 have no divisor in common: 35 pairs
LEVELS = {
    "pixels": "pixels",
    "hidden": "hidden tokens",
    "features": "features",
    "none": "text alone",
    "nothing": "nothing",
}
"""Level of a recipe -> what the page and the legend call it."""
DASHES = {"pixels": "", "hidden": "6 3", "features": "7 3 1.5 3", "none": "1.5 2.5", "nothing": "1.5 2.5"}
"""Level of a recipe -> dashes of its line, in points."""


class Look(NamedTuple):
    """Colour, name of a marker, and dashes in points (empty: a whole line) of a recipe, and the level they tell."""

    colour: str
    marker: str
    dashes: str
    level: str


def looks_of(recipes: Iterable[str], levels: Mapping[str, str]) -> dict[str, Look]:
    """Return the look of each recipe, by its place; a recipe whose level is not known is drawn as one of pixels."""
    looks = {}
    for at, recipe in enumerate(recipes):
        level = levels.get(recipe, "pixels")
        looks[recipe] = Look(_COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)], DASHES[level], level)
    return looks
