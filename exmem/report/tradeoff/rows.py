"""The tables of a page: what was measured, the best of each budget, and comparisons, as text with what it sorts by."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd

from exmem.report.tradeoff.findings import Findings
from exmem.report.tradeoff.frontier import GROUP
from exmem.store import format_bytes

__all__ = [
    "DEFINITIONS",
    "MEASURES",
    "Best",
    "Cell",
    "Matrix",
    "Row",
    "best_of",
    "matrices",
    "measured",
    "measures_shown",
    "sort_text",
]

MEASURES = {
    "average": "average, %",
    "last": "last, %",
    "last_stored": "last as stored, %",
    "bytes": "bytes on disk",
    "exemplars": "exemplars",
    "exemplar_bytes": "bytes each",
    "forgetting": "forgetting, %",
    "seconds": "seconds",
    "step_ms": "step, ms",
    "peak_ram_bytes": "peak RAM",
}
"""Column of the table -> its header on the page."""

DEFINITIONS = {
    "kind": "probe: a linear classifier on features of a frozen backbone, fitted on what the memory gives back and "
    "tested on the test split; nothing is trained. trainer: a whole run of exmem train, phase by phase.",
    "budget": "What memory and head may take on the disk, as the configuration writes it.",
    "bytes on disk": "Bytes of all files of the memory, what the head carries, and the model where the budget counts "
    "it; measured after the last phase. This is the horizontal axis.",
    "exemplars": "Exemplars that the memory held after the last phase.",
    "bytes each": "Bytes of the memory on the disk over its exemplars.",
    "average": "Average incremental accuracy: mean of the accuracies over all classes seen, after each phase. Of a "
    "probe its one accuracy.",
    "last": "Accuracy over all classes after the last phase. Of a probe its one accuracy.",
    "last as stored": "The same on test examples that went through a memory as exemplars do.",
    "best of": "At each budget, the one of some recipes whose mean average is highest; chosen on the same test "
    "examples, which gives a baseline a little too much.",
    "forgetting": "How much the accuracy on the classes of earlier phases has fallen from its best, on average. A "
    "probe has none.",
    "seconds": "Seconds of the last phase of a run; of a probe those of one budget, without the pass of the backbone.",
    "step": "Milliseconds of a replay step of 64 exemplars, from the memory to features.",
    "peak RAM": "Peak of RAM of the process while it ran the cell's job.",
    "±": "Sample standard deviation over seeds; none of one seed.",
    "interval": "95 % confidence interval of a mean over seeds, by Student's t; none of one seed. Intervals are not "
    "corrected for how many recipes are compared.",
    "Pareto front": "Points of a kind, data set and method to which no other has as few bytes and as much accuracy, "
    "and one of both better. It is of means: intervals may overlap.",
    "accuracy at equal bytes": "Mean over seeds of the difference to the baseline at the same budget and seed, in "
    "percentage points.",
    "bytes at equal accuracy": "Bytes that a recipe needs for the accuracy that the baseline reaches at a budget, over "
    "the bytes that the baseline needs: below 1 is fewer. Read off per seed between measured budgets on the logarithm "
    "of bytes, both at the first crossing; geometric mean over seeds. < or > where the accuracy is exceeded at every "
    "budget, or reached at none.",
    "-": "Nothing was measured. A probe with 0 exemplars: none fits, or an empty memory, the tables of its codec or "
    "what the head keeps are more than the budget.",
    "area": "Mean accuracy over the logarithm of bytes, 0 to 100 %, by trapezoids over the range of budgets that all "
    "recipes of a group share.",
}
"""Word of the page -> how the number was made."""


class Cell(NamedTuple):
    """Text, and the number it sorts by; None of what has none."""

    text: str
    value: float | None = None
    tone: str = ""


class Row(NamedTuple):
    """A recipe at a budget: its names, its numbers, its seeds with their folders, and whether it is on the front."""

    names: dict[str, str]
    budget_bytes: int
    cells: list[Cell]
    seeds: list[tuple[int, str]]
    front: bool


class Best(NamedTuple):
    """The best recipe of each budget: budget, recipe, accuracy, and what it is over the baseline."""

    names: dict[str, str]
    measure: str
    rows: list[tuple[str, str, str, Cell]]


class Matrix(NamedTuple):
    """Comparisons of a group: a row a recipe, and a column a budget; of areas one of areas and one of differences."""

    names: dict[str, str]
    measure: str
    about: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]


def measures_shown(findings: Findings) -> list[str]:
    """Return the columns that tell something: none that is empty, and of probes alone one accuracy."""
    runs = bool((findings.last["kind"] != "probe").any())
    return [name for name in MEASURES if findings.last[name].notna().any() and (runs or name != "last")]


def measured(findings: Findings, measures: Sequence[str]) -> list[Row]:
    """Return a row a recipe and budget of a group with some columns, in the order of the table."""
    points = findings.curves
    front = points.loc[points["front"] & (points["measure"] == "average"), [*GROUP, "recipe", "budget"]]
    on_front = set(front.itertuples(index=False, name=None))
    rows = []
    for names, ones in findings.last.groupby([*GROUP, "recipe", "budget"], sort=False):
        known = dict(zip([*GROUP, "recipe", "budget"], names, strict=True))
        cells = [_spread(ones[measure], _SCALES.get(measure, 1.0), _WRITTEN[measure]) for measure in measures]
        if "bytes" in measures and ones["bytes"].mean() > ones["budget_bytes"].iloc[0]:
            at = list(measures).index("bytes")
            cells[at] = cells[at]._replace(text=f"{cells[at].text}, over budget", tone="bad")
        seeds = [
            (int(seed), quote(f"{cell}/", errors="replace"))
            for seed, cell in zip(ones["seed"], ones["cell"], strict=True)
        ]
        rows.append(Row(known, int(ones["budget_bytes"].iloc[0]), cells, seeds, names in on_front))
    return rows


def best_of(findings: Findings) -> list[Best]:
    """Return which recipe has the highest mean accuracy at each budget; of equals, the one of fewer bytes.

    Only those within it, and of as many seeds as any other there; where that is fewer than elsewhere, it is told.
    """
    tables, compared = [], findings.comparisons
    differences = compared[compared["comparison"] == "accuracy at equal bytes"]
    for (*names, measure), points in findings.curves.groupby([*GROUP, "measure"], sort=False):
        known, rows = dict(zip(GROUP, names, strict=True)), []
        points = points[points["bytes"] <= points["budget_bytes"]]
        for budget, ones in points.sort_values("budget_bytes", kind="stable").groupby("budget", sort=False):
            whole = ones[ones["n"] == ones["n"].max()]
            best = whole.sort_values(["accuracy", "bytes"], ascending=[False, True], kind="stable").iloc[0]
            few = f" (seeds: {best['n']} of {points['n'].max()})" if best["n"] < points["n"].max() else ""
            same = _of_group(differences, known, measure)
            same = same[(same["recipe"] == best["recipe"]) & (same["budget"] == budget)]
            if best["recipe"] == findings.baseline:
                difference = Cell("baseline")
            else:
                difference = _difference(same.iloc[0]) if len(same) else Cell("")
            rows.append((str(budget), str(best["recipe"]), f"{100 * best['accuracy']:.1f} %{few}", difference))
        tables.append(Best(known, str(measure), rows))
    return tables


def matrices(findings: Findings, comparison: str) -> Iterator[Matrix]:
    """Yield a matrix a group and measure of one comparison; none where a group lacks the baseline."""
    chosen = findings.comparisons
    chosen = chosen[chosen["comparison"] == comparison]
    for (*names, measure), ones in chosen.groupby([*GROUP, "measure"], sort=False):
        known, about = dict(zip(GROUP, names, strict=True)), ""
        if comparison == "area":
            columns, about = ["area, %", "difference"], f"from {ones['budget'].iloc[0]}"
            rows = [(str(one["recipe"]), _area(one)) for _, one in ones.iterrows()]
        else:
            write = _difference if comparison == "accuracy at equal bytes" else _ratio
            columns = ones.sort_values("budget_bytes", kind="stable")["budget"].unique().tolist()
            rows = [
                (str(recipe), [_looked_up(of_recipe, budget, write) for budget in columns])
                for recipe, of_recipe in ones.groupby("recipe", sort=False)
            ]
        yield Matrix(known, str(measure), about, columns, rows)


def sort_text(cell: Cell) -> str:
    """Return what a page sorts a cell by; empty sorts last."""
    return "" if cell.value is None or np.isnan(cell.value) else f"{cell.value:.9g}"


def _looked_up(ones: pd.DataFrame, budget: str, write: Callable[[pd.Series], Cell]) -> Cell:
    at = ones[ones["budget"] == budget]
    return write(at.iloc[0]) if len(at) else Cell("-")


def _of_group(rows: pd.DataFrame, names: dict[str, str], measure: object) -> pd.DataFrame:
    wanted = rows["measure"] == measure
    for key, value in names.items():
        wanted &= rows[key] == value
    return rows[wanted]


def _difference(one: pd.Series) -> Cell:
    value, low, high = 100 * one["value"], 100 * one["low"], 100 * one["high"]
    return Cell(f"{value:+.1f}{_between(low, high, '+.1f')}", value, _tone(low, high, 0.0, good="more"))


def _ratio(one: pd.Series) -> Cell:
    if one["bound"] == "mixed":
        return Cell("not known: < and >")
    sign = f"{one['bound']} " if one["bound"] else ""
    text = f"{sign}{one['value']:.2f} ×{_between(one['low'], one['high'], '.2f')}"
    if one["bound"]:
        clear = one["value"] <= 1 if one["bound"] == "<" else one["value"] >= 1
        tone = {"<": "good", ">": "bad"}[one["bound"]] if clear and one["n"] > 1 else ""
        return Cell(text, one["value"], tone)
    return Cell(text, one["value"], _tone(one["low"], one["high"], 1.0, good="less"))


def _area(one: pd.Series) -> list[Cell]:
    alone = Cell(f"{100 * one['recipe_value']:.1f}", 100 * one["recipe_value"])
    return [
        alone,
        Cell("baseline" if one["recipe"] == one["baseline"] else "-") if np.isnan(one["value"]) else _difference(one),
    ]


def _between(low: float, high: float, form: str) -> str:
    return "" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]"


def _tone(low: float, high: float, zero: float, *, good: str) -> str:
    """Say whether an interval lies on one side of no difference, and which."""
    if np.isnan(low) or low <= zero <= high:
        return ""
    return "good" if (low > zero) == (good == "more") else "bad"


_SCALES = {"average": 100.0, "last": 100.0, "last_stored": 100.0, "forgetting": 100.0}


def _grouped(value: float) -> str:
    return f"{value:,.0f}"


def _one_digit(value: float) -> str:
    return f"{value:,.1f}"


def _size(value: float) -> str:
    return format_bytes(round(value))


_WRITTEN: dict[str, Callable[[float], str]] = dict.fromkeys(MEASURES, _one_digit)
_WRITTEN |= {"bytes": _grouped, "exemplars": _grouped, "exemplar_bytes": _grouped, "peak_ram_bytes": _size}


def _spread(values: Sequence[float], scale: float, write: Callable[[float], str]) -> Cell:
    numbers = scale * np.array([value for value in values if not np.isnan(value)], np.float64)
    if not len(numbers):
        return Cell("-")
    deviation = f" ± {write(float(numbers.std(ddof=1)))}" if len(numbers) > 1 else ""
    return Cell(f"{write(float(numbers.mean()))}{deviation}", float(numbers.mean()))
