"""Selection: which exemplars come in."""

import dataclasses
from functools import partial
from typing import Any

from exmem.errors import SchemaError
from exmem.selection.base import Selection
from exmem.selection.closest_to_mean import closest_to_mean
from exmem.selection.herding import herding
from exmem.selection.k_centre import k_centre
from exmem.selection.random import random_order
from exmem.selection.ranked import ranked
from exmem.selection.reservoir import Reservoir, reservoir_order

__all__ = [
    "SELECTIONS",
    "Reservoir",
    "Selection",
    "closest_to_mean",
    "get_selection",
    "herding",
    "k_centre",
    "random_order",
    "ranked",
    "reservoir_order",
]

SELECTIONS: dict[str, Selection] = {
    "closest_to_mean": Selection(closest_to_mean, needs="features"),
    "entropy": Selection(ranked, needs="values"),
    "herding": Selection(herding, needs="features"),
    "k_centre": Selection(k_centre, needs="features"),
    "loss": Selection(ranked, needs="values"),
    "random": Selection(random_order, needs="rng"),
    "reservoir": Selection(reservoir_order, needs="rng"),
}


def get_selection(name: str, **options: Any) -> Selection:
    """Find a selection rule by name.

    Parameters
    ----------
    name : str
        A key of `SELECTIONS`.
    **options : object
        Its options: `first` for `loss` and `entropy`.

    Returns
    -------
    Selection
        The rule.

    Raises
    ------
    SchemaError
        If the name is unknown.

    Examples
    --------
    >>> get_selection("loss", first="lowest")(3, values=[0.5, 0.1, 0.9], count=2).tolist()
    [1, 0]
    """
    if name not in SELECTIONS:
        raise SchemaError(f"unknown selection {name!r}; choose one of {sorted(SELECTIONS)}")
    found = SELECTIONS[name]
    return dataclasses.replace(found, order=partial(found.order, **options)) if options else found
