"""The table of a trade-off in short: mean and spread over seeds."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from exmem.report.tradeoff.cells import Cell
from exmem.report.tradeoff.design import DEFAULT

__all__ = ["Summary", "spread", "summaries"]


class Summary(NamedTuple):
    """A table of one kind of cell on one data set with one method: a row a recipe, a column a budget."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def spread(values: Sequence[float], *, percent: bool = True) -> str:
    """Write the mean of values and, of more than one, their sample standard deviation; "-" where none is known."""
    numbers = np.array([value for value in values if not np.isnan(value)], np.float64)
    if not len(numbers):
        return "-"
    numbers = 100 * numbers if percent else numbers
    deviation = f" ± {numbers.std(ddof=1):.1f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():,.1f}{deviation}"


def summaries(table: pd.DataFrame, cells: Sequence[Cell]) -> Iterator[Summary]:
    """Yield what is known after the last phase of each cell, in the order of the configuration.

    Of a probe its accuracy, of runs their average incremental and last accuracy, in per cent, and exemplars held.
    """
    last = table[table["phase"] == table.groupby("cell")["phase"].transform("max")]
    budgets = list(dict.fromkeys(cell.budget for cell in cells))
    for kind, data, method in dict.fromkeys((cell.kind, cell.data, cell.method) for cell in cells):
        part = last[(last["kind"] == kind) & (last["data"] == data) & (last["method"] == method)]
        recipes = dict.fromkeys(
            cell.recipe for cell in cells if (cell.kind, cell.data, cell.method) == (kind, data, method)
        )
        used = [budget for budget in budgets if (part["budget"] == budget).any()]
        rows = [(recipe, *(_cell(part, kind, recipe, budget) for budget in used)) for recipe in recipes]
        if used:
            title = f"{data}, {kind}" if method == DEFAULT else f"{data}, {kind}, {method}"
            yield Summary(title, ("recipe", *used), rows)


def _cell(part: pd.DataFrame, kind: str, recipe: str, budget: str) -> str:
    rows = part[(part["recipe"] == recipe) & (part["budget"] == budget)]
    if not len(rows):
        return "-"
    held = f"{rows['exemplars'].mean():,.0f}"
    measures = ["average"] if kind == "probe" else ["average", "last"]
    return f"{held}: " + ", ".join(spread(rows[name].tolist()) for name in measures)
