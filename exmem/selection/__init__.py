"""Selection: which exemplars come in."""

from exmem.registry import Registry
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
    "herding",
    "k_centre",
    "random_order",
    "ranked",
    "reservoir_order",
]

SELECTIONS: Registry[Selection] = Registry(
    "selection",
    {
        "closest_to_mean": Selection(closest_to_mean, needs="features"),
        "entropy": Selection(ranked, needs="values"),
        "herding": Selection(herding, needs="features"),
        "k_centre": Selection(k_centre, needs="features"),
        "loss": Selection(ranked, needs="values"),
        "random": Selection(random_order, needs="rng"),
        "reservoir": Selection(reservoir_order, needs="rng"),
    },
)
"""Selections by name: in which order the examples of a class come in."""
