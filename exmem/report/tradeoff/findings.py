"""What a trade-off found, with all that its images, comparisons and page tell of it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import pandas as pd

from exmem.report.tradeoff.comparisons import comparisons
from exmem.report.tradeoff.frontier import across_methods, curves, last_phases, with_best
from exmem.report.tradeoff.looks import Look, looks_of
from exmem.report.tradeoff.sheets import RecipeSheet

__all__ = ["Findings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """The table of a trade-off (`COLUMNS`), what failed (`FAILURE_COLUMNS`), and how both were made.

    `recipes` in the order of the configuration, and `best_of` names for the best of some of them; `levels` of each
    what it stores; `baseline` the one that others are compared with; `configuration` and `command` as they were
    written; `left` how many cells are neither done nor failed; `machines` those of the cells, in words; `sheets`
    exemplars of recipes, and `notes` what is not shown.
    """

    table: pd.DataFrame
    failures: pd.DataFrame
    recipes: Sequence[str]
    baseline: str
    best_of: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    levels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    title: str = "What a byte buys"
    configuration: str = ""
    command: str = ""
    written: str = ""
    left: int = 0
    machines: Sequence[str] = ()
    sheets: Sequence[RecipeSheet] = ()
    notes: Sequence[str] = ()

    @functools.cached_property
    def last(self) -> pd.DataFrame:
        """Rows after the last phase of each cell, and those of the best of some recipes."""
        return with_best(last_phases(self.table), self.best_of)

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """Points of all recipes."""
        return curves(self.last)

    @functools.cached_property
    def across_methods(self) -> pd.DataFrame:
        """Points of the best recipe of each method."""
        return across_methods(self.curves)

    @functools.cached_property
    def comparisons(self) -> pd.DataFrame:
        """All recipes against the baseline."""
        return comparisons(self.last, self.baseline)

    @functools.cached_property
    def looks(self) -> dict[str, Look]:
        """How each recipe is drawn."""
        levels = dict(self.levels) | {name: self.levels.get(ones[0], "pixels") for name, ones in self.best_of.items()}
        return looks_of([*self.recipes, *self.best_of], levels)
