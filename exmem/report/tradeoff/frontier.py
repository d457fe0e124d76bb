"""Accuracy over bytes on the disk: means and intervals over seeds, and which recipes are on the Pareto front."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = [
    "CURVE_COLUMNS",
    "GROUP",
    "Interval",
    "across_methods",
    "curves",
    "groups",
    "interval",
    "last_phases",
    "measures_of",
    "pareto",
    "with_best",
]

GROUP = ["kind", "data", "method"]
"""What points have in common that are drawn and compared together."""
CURVE_COLUMNS = [
    *GROUP,
    "measure",
    "recipe",
    "budget",
    "budget_bytes",
    "bytes",
    "accuracy",
    "low",
    "high",
    "n",
    "front",
]
"""A point of a curve: mean bytes on the disk and accuracy over seeds, the 95 % interval of the accuracy (NaN of one
seed), how many seeds, and whether no other point of the group has fewer bytes and more accuracy; points of fewer seeds
than others of their group, or over their budget, are none of the front."""

_CELL = [*GROUP, "recipe", "budget", "seed"]
_SHARE = 0.975  # of Student's t: both tails beyond are 5 %


class Interval(NamedTuple):
    """A mean, and its 95 % confidence interval by Student's t; NaN where fewer than two values are known."""

    mean: float
    low: float
    high: float
    n: int


def interval(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Return the mean of the values that are known, and its interval."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[~np.isnan(numbers)]
    n = len(numbers)
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    mean = float(numbers.mean())
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = float(stdtrit(n - 1, _SHARE) * numbers.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def last_phases(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table (`COLUMNS`) after the last phase of each cell."""
    last = table.groupby(_CELL, sort=False)["phase"].transform("max")
    return table[table["phase"] == last].reset_index(drop=True)


def with_best(last: pd.DataFrame, best_of: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Add rows of the best of some recipes by a name for them: at each budget of a group, the highest mean average.

    Only recipes within the budget, of as many seeds as any of them there; of equals, the one of fewer bytes.
    """
    parts = [last]
    for name, recipes in best_of.items():
        of_these = last[
            last["recipe"].isin(recipes) & last["average"].notna() & (last["bytes"] <= last["budget_bytes"])
        ]
        for _, ones in of_these.groupby([*GROUP, "budget"], sort=False):
            means = ones.groupby("recipe", sort=False).agg(
                n=("seed", "count"), accuracy=("average", "mean"), size=("bytes", "mean")
            )
            means = means[means["n"] == means["n"].max()]
            best = means.sort_values(["accuracy", "size"], ascending=[False, True], kind="stable").index[0]
            parts.append(ones[ones["recipe"] == best].assign(recipe=name))
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else last


def across_methods(points: pd.DataFrame) -> pd.DataFrame:
    """Return the best recipe of each method at each budget as points (`CURVE_COLUMNS`) whose recipe is the method.

    Data sets with one method alone have none, and what is over its budget counts for none.
    """
    parts = []
    for _, ones in points.groupby(["kind", "data", "measure"], sort=False):
        if ones["method"].nunique() < 2:
            continue
        whole = ones[(ones["n"] == ones["n"].max()) & (ones["bytes"] <= ones["budget_bytes"])]
        best = whole.loc[whole.groupby(["method", "budget"], sort=False)["accuracy"].idxmax()]
        best = best.assign(recipe=best["method"], method="best of each").sort_values(["recipe", "bytes"], kind="stable")
        best["front"] = pareto(best["bytes"].tolist(), best["accuracy"].tolist())
        parts.append(best)
    return pd.concat(parts, ignore_index=True) if parts else points.iloc[:0]


def measures_of(kind: str) -> tuple[str, ...]:
    """Return the columns that are accuracies of a kind of cell; the two of a probe are one."""
    return ("average",) if kind == "probe" else ("average", "last")


def groups(last: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Yield kind, data and method of what is compared together, and its rows, in the order of the table."""
    for names, rows in last.groupby(GROUP, sort=False):
        kind, data, method = map(str, names)
        yield (kind, data, method), rows


def curves(last: pd.DataFrame) -> pd.DataFrame:
    """Return the points of all recipes (`CURVE_COLUMNS`), by bytes; budgets at which nothing was stored have none."""
    points: list[dict[str, Any]] = []
    for names, rows in groups(last):
        for measure in measures_of(names[0]):
            points += _points(dict(zip(GROUP, names, strict=True)) | {"measure": measure}, rows, measure)
    return pd.DataFrame(points, columns=CURVE_COLUMNS)


def _points(names: dict[str, str], rows: pd.DataFrame, measure: str) -> list[dict[str, Any]]:
    points = []
    for recipe, ones in rows.groupby("recipe", sort=False):
        of_recipe = []
        for budget, cells in ones[ones[measure].notna()].groupby("budget", sort=False):
            mean, low, high, n = interval(cells[measure].to_numpy())
            of_recipe.append(
                {
                    **names,
                    "recipe": recipe,
                    "budget": budget,
                    "budget_bytes": int(cells["budget_bytes"].iloc[0]),
                    "bytes": float(cells["bytes"].mean()),
                    "accuracy": mean,
                    "low": low,
                    "high": high,
                    "n": n,
                }
            )
        points += sorted(of_recipe, key=lambda point: (point["bytes"], point["budget_bytes"]))
    most = max((point["n"] for point in points), default=0)
    whole = [point for point in points if point["n"] == most and point["bytes"] <= point["budget_bytes"]]
    front = pareto([point["bytes"] for point in whole], [point["accuracy"] for point in whole])
    for point in points:
        point["front"] = False
    for point, on_front in zip(whole, front, strict=True):
        point["front"] = on_front
    return points


def pareto(sizes: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Say of each point whether none has as few bytes and as much accuracy, and one of both better."""
    order = sorted(range(len(sizes)), key=lambda at: (sizes[at], -accuracies[at]))
    front, best, of_size = [False] * len(sizes), -np.inf, np.nan
    for at in order:
        equal = sizes[at] == of_size and accuracies[at] == best  # the same point again
        if accuracies[at] > best or equal:
            front[at], best, of_size = True, accuracies[at], sizes[at]
    return front
