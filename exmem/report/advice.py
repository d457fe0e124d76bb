"""Accuracy over bytes of what a frozen probe measured, drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from exmem.store import format_bytes
from exmem.train.stored_sample import Measured

__all__ = ["draw_advice", "plot_advice"]

_STYLES = {"pixels": "-", "hidden": "--", "features": "-.", "none": ":"}
_LEVELS = {"pixels": "pixels", "hidden": "hidden tokens", "features": "features", "none": "text alone"}
_MARKERS = "os^"  # the next where the ten colours are through


def draw_advice(measured: Sequence[Sequence[Measured]], path: Path) -> None:
    """Draw a line a recipe, its accuracy at each budget, as a PNG file."""
    plot_advice(measured).savefig(path, dpi=120, format="png")


def plot_advice(measured: Sequence[Sequence[Measured]]) -> Figure:
    """Plot a line a recipe over budgets, best first in the legend; levels differ in their line style."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    ranked = sorted(measured, key=lambda ones: -sum(one.accuracy for one in ones))
    for at, ones in enumerate(ranked):
        fits = [one for one in ones if one.accuracies]
        if fits:
            budgets, means = [one.max_bytes for one in fits], [one.accuracy for one in fits]
            level = fits[0].recipe.level
            style: dict[str, Any] = {
                "color": f"C{at % 10}",
                "linestyle": _STYLES[level],
                "marker": _MARKERS[at // 10 % len(_MARKERS)],
                "markersize": 4,
            }
            axis.plot(budgets, means, label=f"{fits[0].recipe.name} ({_LEVELS[level]})", **style)
    budgets = sorted({one.max_bytes for ones in measured for one in ones})
    axis.set_xscale("log")
    axis.set_xticks(budgets)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda budget, _: format_bytes(round(budget))))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axis.set(xlabel="budget of the memory", ylabel="accuracy of the frozen probe")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure
