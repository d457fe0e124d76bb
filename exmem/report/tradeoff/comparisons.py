"""Recipes against one of them: accuracy at equal bytes, bytes at equal accuracy, and the area under the curve."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from exmem.errors import SchemaError
from exmem.report.tradeoff.files import replaced
from exmem.report.tradeoff.frontier import GROUP, Interval, groups, interval, measures_of
from exmem.store import format_bytes

__all__ = [
    "COMPARISON_COLUMNS",
    "Needed",
    "area",
    "bytes_needed",
    "chosen_baseline",
    "comparisons",
    "write_comparisons",
]

COMPARISON_COLUMNS = [
    *("comparison", *GROUP, "measure", "recipe", "baseline", "budget", "budget_bytes"),
    *("recipe_value", "baseline_value", "value", "bound", "low", "high", "n"),
]
"""A recipe against the baseline, over the seeds that both have:

- `accuracy at equal bytes`: mean accuracies at one budget, and `value`, the mean of their differences; none of what is
  over its budget;
- `bytes at equal accuracy`: the bytes that the recipe needs for what the baseline reaches at a budget, and those that
  the baseline needs (geometric means; both at their first crossing), and `value`, their ratio; `bound` is `<` or `>`
  where the true ratio lies below or above it, and `mixed` where that is not known or seeds do not agree in it: then
  there is no ratio;
- `area`: mean accuracy over the logarithm of bytes within `budget`, and `value`, the mean of the differences.

`low` and `high` are the 95 % interval of `value` by Student's t (of a ratio: on its logarithm); they are empty of fewer
than two seeds, and where there is a bound. `n` counts seeds."""

_USUAL = "half_jpeg"

Bound = Literal["", "<", ">", "mixed"]

# Bounds of the bytes of a recipe and of the baseline, which reaches its own accuracy -> bound of their ratio.
_BOUNDS: dict[tuple[Bound, Bound], Bound] = {
    ("", ""): "",
    ("<", ""): "<",
    (">", ""): ">",
    ("", "<"): ">",
    ("<", "<"): "mixed",
    (">", "<"): ">",
}


class Needed(NamedTuple):
    """Bytes for an accuracy: exact, or fewer (`<`) than the fewest that were measured, or more (`>`) than the most."""

    bytes: float
    bound: Bound = ""


class _Point(NamedTuple):
    budget: str
    budget_bytes: int
    bytes: float
    accuracy: float

    @property
    def fits(self) -> bool:
        """Whether it keeps to its budget; a recipe that takes a count does not."""
        return self.bytes <= self.budget_bytes


_Curves = dict[str, dict[int, list[_Point]]]  # by recipe and seed, points by budget


def chosen_baseline(recipes: Sequence[str], best_of: Collection[str] = (), wanted: str | None = None) -> str:
    """Return what others are compared with: what is wanted, else the first best of some, half_jpeg, the first."""
    known = [*best_of, *([_USUAL] if _USUAL in recipes else []), *recipes]
    if wanted is not None and wanted not in known:
        raise SchemaError(f"baseline: unknown recipe {wanted!r}; choose of {[*recipes, *best_of]}")
    return wanted or known[0]


def comparisons(last: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Compare all recipes with one (`COMPARISON_COLUMNS`); a group of cells without it has areas alone."""
    rows = []
    for names, cells in groups(last):
        for measure in measures_of(names[0]):
            shared = {**dict(zip(GROUP, names, strict=True)), "measure": measure, "baseline": baseline}
            curves = _curves(cells, measure)
            ones = itertools.chain(
                _at_equal_bytes(curves, baseline), _at_equal_accuracy(curves, baseline), _areas(curves, baseline)
            )
            rows += [{**shared, **one} for one in ones]
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS)


def write_comparisons(compared: pd.DataFrame, path: Path) -> None:
    """Write comparisons as a CSV file, whole or not at all."""
    replaced(path, lambda temporary: compared.to_csv(temporary, index=False))


def bytes_needed(sizes: Sequence[float], accuracies: Sequence[float], target: float) -> Needed:
    """Return the fewest bytes at which a curve reaches an accuracy, between its points on the logarithm of bytes.

    Points of equal bytes count with their mean. Of a curve that falls again, the first crossing is meant.
    """
    by_size: dict[float, list[float]] = {}
    for size, accuracy in sorted(zip(sizes, accuracies, strict=True)):
        by_size.setdefault(size, []).append(accuracy)
    points = [(size, float(np.mean(values))) for size, values in by_size.items()]
    if points[0][1] >= target:
        return Needed(points[0][0], "<" if points[0][1] > target else "")
    for (size, below), (next_size, reached) in itertools.pairwise(points):
        if reached >= target:
            share = (target - below) / (reached - below)
            return Needed(float(np.exp(np.log(size) + share * (np.log(next_size) - np.log(size)))))
    return Needed(points[-1][0], ">")


def area(sizes: Sequence[float], accuracies: Sequence[float], start: float, stop: float) -> float:
    """Return the mean of a curve over the logarithm of bytes from start to stop; NaN where it does not span these."""
    if len(sizes) < 2 or sizes[0] > start or sizes[-1] < stop or start >= stop:
        return float("nan")
    logs, ends = np.log(np.asarray(sizes, np.float64)), np.log([start, stop])
    inside = logs[(logs > ends[0]) & (logs < ends[1])]
    places = np.concatenate([ends[:1], inside, ends[1:]])
    return float(np.trapezoid(np.interp(places, logs, accuracies), places) / (ends[1] - ends[0]))


def _curves(cells: pd.DataFrame, measure: str) -> _Curves:
    curves: _Curves = {}
    for (recipe, seed), ones in cells.groupby(["recipe", "seed"], sort=False):
        columns = (ones["budget"], ones["budget_bytes"], ones["bytes"], ones[measure])
        points = [_Point(*values) for values in zip(*columns, strict=True) if not np.isnan(values[-1])]
        curves.setdefault(str(recipe), {})[int(seed)] = sorted(points, key=lambda point: point.budget_bytes)
    return curves


def _curve(points: Sequence[_Point]) -> tuple[list[float], list[float]]:
    return [point.bytes for point in points], [point.accuracy for point in points]


def _others(curves: _Curves, baseline: str) -> Iterator[tuple[str, list[int]]]:
    """Yield other recipes than the baseline, and the seeds that both have."""
    for recipe, by_seed in curves.items():
        if recipe != baseline and baseline in curves:
            yield recipe, sorted(set(by_seed) & set(curves[baseline]))


def _at_equal_bytes(curves: _Curves, baseline: str) -> Iterator[dict[str, Any]]:
    for recipe, seeds in _others(curves, baseline):
        pairs: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for seed in seeds:
            known = {point.budget: point for point in curves[recipe][seed]}
            for point in curves[baseline][seed]:
                if point.budget in known and known[point.budget].fits:
                    key = (point.budget, point.budget_bytes)
                    pairs.setdefault(key, []).append((known[point.budget].accuracy, point.accuracy))
        for (budget, budget_bytes), values in sorted(pairs.items(), key=lambda one: one[0][1]):
            mine, theirs = np.array(values, np.float64).T
            row = _names("accuracy at equal bytes", recipe, budget, budget_bytes)
            yield row | _numbers(float(mine.mean()), float(theirs.mean()), interval(mine - theirs))


def _at_equal_accuracy(curves: _Curves, baseline: str) -> Iterator[dict[str, Any]]:
    for recipe, seeds in _others(curves, baseline):
        pairs: dict[tuple[str, int], list[tuple[Needed, float]]] = {}
        for seed in seeds:
            mine, theirs = curves[recipe][seed], _curve(curves[baseline][seed])
            sizes, accuracies = _curve(mine)
            for point in curves[baseline][seed] if mine else []:
                needed, first = bytes_needed(sizes, accuracies, point.accuracy), bytes_needed(*theirs, point.accuracy)
                if first.bound == ">":  # its points of equal bytes count with their mean
                    first = Needed(point.bytes)
                bound: Bound = "" if needed == first else _BOUNDS[needed.bound, first.bound]
                bounded = needed._replace(bound=bound)
                pairs.setdefault((point.budget, point.budget_bytes), []).append((bounded, first.bytes))
        for (budget, budget_bytes), values in sorted(pairs.items(), key=lambda one: one[0][1]):
            row = _names("bytes at equal accuracy", recipe, budget, budget_bytes)
            yield row | _ratio(values)


def _ratio(values: Sequence[tuple[Needed, float]]) -> dict[str, Any]:
    mine = np.log([needed.bytes for needed, _ in values])
    theirs = np.log([size for _, size in values])
    bounds = {needed.bound for needed, _ in values if needed.bound}
    # A mean of bounds on one side, and of what is known, bounds the mean; of bounds on both sides nothing does.
    bound: Bound = "mixed" if len(bounds) > 1 else next(iter(bounds), "")
    logs = interval(mine - theirs)
    known = Interval(float(np.exp(logs.mean)), float(np.exp(logs.low)), float(np.exp(logs.high)), logs.n)
    if bound:
        known = known._replace(low=float("nan"), high=float("nan"))
    if bound == "mixed":
        return _numbers(float("nan"), float(np.exp(theirs.mean())), known._replace(mean=float("nan")), bound)
    return _numbers(float(np.exp(mine.mean())), float(np.exp(theirs.mean())), known, bound)


def _areas(curves: _Curves, baseline: str) -> Iterator[dict[str, Any]]:
    """Yield areas over the budgets that recipes share, of those that keep to them.

    Recipes with fewer than two budgets narrow the range of none.
    """
    curves = {
        recipe: by_seed
        for recipe, by_seed in curves.items()
        if all(point.fits for points in by_seed.values() for point in points)
    }
    spans = []
    for by_seed in curves.values():
        budgets = [point.budget_bytes for points in by_seed.values() for point in points]
        if len(set(budgets)) > 1:
            spans.append((min(budgets), max(budgets)))
    start, stop = max((low for low, _ in spans), default=0), min((high for _, high in spans), default=0)
    if start >= stop:
        return
    areas = {
        recipe: {
            seed: area([point.budget_bytes for point in points], [point.accuracy for point in points], start, stop)
            for seed, points in by_seed.items()
        }
        for recipe, by_seed in curves.items()
    }
    theirs = areas.get(baseline, {})
    for recipe, values in areas.items():
        pairs = [(value, theirs[seed]) for seed, value in values.items() if seed in theirs]
        pairs = [pair for pair in pairs if not np.isnan(pair).any()]
        row = _names("area", recipe, f"{format_bytes(start)} to {format_bytes(stop)}", None)
        if recipe == baseline or not pairs:
            alone = interval(list(values.values()))
            if alone.n:
                yield row | _numbers(alone.mean, float("nan"), interval([])._replace(n=alone.n))
            continue
        mine, others = np.array(pairs, np.float64).T
        yield row | _numbers(float(mine.mean()), float(others.mean()), interval(mine - others))


def _names(comparison: str, recipe: str, budget: str, budget_bytes: int | None) -> dict[str, Any]:
    return {"comparison": comparison, "recipe": recipe, "budget": budget, "budget_bytes": budget_bytes}


def _numbers(recipe: float, baseline: float, value: Interval, bound: Bound = "") -> dict[str, Any]:
    between = {"value": value.mean, "bound": bound, "low": value.low, "high": value.high, "n": value.n}
    return {"recipe_value": recipe, "baseline_value": baseline, **between}
