"""The frontier of each kind, data set and method as an image: accuracy over bytes on the disk."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from exmem.report.tradeoff.design import DEFAULT
from exmem.report.tradeoff.files import replaced
from exmem.report.tradeoff.findings import Findings
from exmem.report.tradeoff.looks import DASHES, LEVELS, Look, looks_of
from exmem.report.view.fonts import find_families
from exmem.store import format_bytes

__all__ = ["draw_frontiers", "plot_frontier"]

_MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "down": "v"}
_NAMES = {"average": "average incremental accuracy", "last": "accuracy after the last phase"}
_PROBE = "accuracy of the frozen probe"
_GREY = "#5a6474"


def draw_frontiers(findings: Findings, out: Path) -> list[Path]:
    """Draw a PNG and an SVG file a kind, data set, method and measure, and one of the best of each method.

    The same findings make the same bytes.
    """
    paths, across = [], findings.across_methods
    methods = looks_of(dict.fromkeys(across["recipe"]), {})
    drawn = [(name, curves, findings.looks) for name, curves in _figures(findings.curves)]
    drawn += [(name, curves, methods) for name, curves in _figures(across)]
    for name, curves, looks in drawn:
        figure = plot_frontier(curves, looks)
        for suffix in ("png", "svg"):
            path = out / f"frontier-{name}.{suffix}"
            replaced(path, functools.partial(_save, figure))
            paths.append(path)
    return paths


def _save(figure: Figure, path: Path) -> None:
    suffix = path.suffix.removeprefix(".")
    with mpl.rc_context({"svg.hashsalt": "exmem", "svg.fonttype": "path"}):
        figure.savefig(path, dpi=150, format=suffix, metadata={"Date": None} if suffix == "svg" else {"Software": None})


def _figures(curves: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a name for files, and the points of a figure; names that are alike as files get a number."""
    taken = dict[str, int]()
    for (kind, data, method, measure), points in curves.groupby(["kind", "data", "method", "measure"], sort=False):
        words = [kind, data] if method == DEFAULT else [kind, data, method]
        words += ["last"] if measure == "last" else []
        name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", str(word)) for word in words)[:80]
        taken[name.lower()] = number = taken.get(name.lower(), 0) + 1
        yield name if number == 1 else f"{name}-{number}", points


def plot_frontier(curves: pd.DataFrame, looks: dict[str, Look]) -> Figure:
    """Plot the points of one kind, data set, method and measure (`CURVE_COLUMNS`): a line a recipe, best first.

    Bars are 95 % intervals; the points of the Pareto front are ringed and joined.
    """
    first = curves.iloc[0]
    means = curves.groupby("recipe", sort=False)["accuracy"].mean().sort_values(ascending=False, kind="stable")
    figure = Figure(figsize=(10.5, max(5.2, 1.6 + 0.235 * len(means))), layout="constrained")
    axis = figure.subplots()
    for recipe in means.index:
        points = curves[curves["recipe"] == recipe]
        look = looks[str(recipe)]
        _bars(axis, points, look.colour)
        over = " (over budget)" if (points["bytes"] > points["budget_bytes"]).all() else ""
        axis.plot(points["bytes"], points["accuracy"], label=f"{recipe}{over}", markersize=4.5, **_style(look))
    _front(axis, curves)
    _axes(axis, curves)
    title = ", ".join([first["data"], first["kind"], *([] if first["method"] == DEFAULT else [first["method"]])])
    axis.set_ylabel(_PROBE if first["kind"] == "probe" else _NAMES[first["measure"]])
    families, lacking = find_families(set("".join([title, *map(str, means.index)])))
    families = ("DejaVu Sans", *families)
    spelt = str.maketrans({letter: f"<U+{ord(letter):04X}>" for letter in lacking})
    axis.set_title(_short(title, 90).translate(spelt), loc="left", parse_math=False, family=families)
    for text in _legend(figure, axis, {looks[str(recipe)].level for recipe in means.index}):
        text.set(parse_math=False, family=families, text=_short(text.get_text()).translate(spelt))
    return figure


def _style(look: Look) -> dict[str, Any]:
    dashes = tuple(map(float, look.dashes.split()))
    return {
        "color": look.colour,
        "linestyle": (0, dashes) if dashes else "-",
        "linewidth": 1.4,
        "marker": _MARKERS[look.marker],
    }


def _bars(axis: Axes, points: pd.DataFrame, colour: str) -> None:
    known = points[points["low"].notna()]
    axis.vlines(known["bytes"], known["low"], known["high"], color=colour, alpha=0.35, linewidth=1.6)


def _front(axis: Axes, curves: pd.DataFrame) -> None:
    front = curves[curves["front"]].sort_values("bytes")
    axis.plot(front["bytes"], front["accuracy"], color=_GREY, linewidth=5, alpha=0.18, solid_capstyle="round", zorder=1)
    ring: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": "#1c2330"}
    axis.plot(front["bytes"], front["accuracy"], linestyle="none", zorder=5, **ring)


def _axes(axis: Axes, curves: pd.DataFrame) -> None:
    low, high = curves["bytes"].min() / 1.12, curves["bytes"].max() * 1.12
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)))
    steps = (1, 2, 5) if high / low < 2000 else (1,)
    ticks = [tick for decade in decades for tick in np.multiply(steps, decade) if low <= tick <= high]
    if len(ticks) < 2:
        ticks = [curves["bytes"].min(), curves["bytes"].max()]
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda size, _: format_bytes(round(size)).replace(".00", "").replace(".0", ""))
    )
    axis.set_ylim(bottom=max(0.0, axis.get_ylim()[0]))  # intervals reach below
    axis.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axis.set_xlabel("bytes on the disk")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axis: Axes, levels: set[str]) -> list[Any]:
    """Add the legend outside, recipes best first, then what rings and lines mean; return its texts of recipes."""
    lines, names = axis.get_legend_handles_labels()
    ring = Line2D([], [], marker="o", markersize=9, markerfacecolor="none", markeredgecolor="#1c2330", linestyle="none")
    handles, labels = [*lines, ring], [*names, "Pareto front"]
    if len(levels) > 1:
        for level in [level for level in LEVELS if level in levels]:
            dashes = _style(Look(_GREY, "circle", DASHES[level], level)) | {"marker": ""}
            handles.append(Line2D([], [], **dashes))
            labels.append(f"stores {LEVELS[level]}")
    legend = figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8.5, handlelength=3.4)
    return legend.get_texts()[: len(names)]


def _short(name: str, most: int = 32) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
