"""Images of runs."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from exmem.report.view.fonts import find_families

__all__ = ["draw_accuracy", "plot_accuracy"]

_KINDS = (("head", "Head"), ("ncm", "Nearest class mean"))
_APART = 0.05  # of the axis: the height of a label
_LETTERS = 24  # of a label beside its line
_STYLES = ("-", "--", ":", "-.")  # each with all ten colours


def draw_accuracy(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the accuracy after each phase of each run, given its metrics by its name, as a PNG file."""
    plot_accuracy(runs).savefig(path, dpi=120, format="png")


def plot_accuracy(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Plot a line a run, named at its end where the names of all fit there, else in a legend outside."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    last = max((entry["phase"] + 1 for entries in runs.values() for entry in entries), default=1)
    direct = all(_labels_fit(runs, kind) for kind, _ in _KINDS)
    seen, (families, lacking) = _classes_seen(runs), find_families(set("".join(runs)))
    for axis, (kind, title) in zip(axes, _KINDS, strict=True):
        for at, (name, entries) in enumerate(runs.items()):
            phases = [entry["phase"] + 1 for entry in entries]  # from 1, as the console counts them
            shown = "".join(f"<U+{ord(letter):04X}>" if letter in lacking else letter for letter in name)
            style = {"color": f"C{at % 10}", "linestyle": _STYLES[at // 10 % len(_STYLES)], "label": shown}
            axis.plot(phases, [entry[kind]["all"] for entry in entries], marker="o", markersize=4, **style)
            if direct and entries:
                end = phases[-1], entries[-1][kind]["all"]
                label = {"textcoords": "offset points", "xytext": (7, 0), "va": "center", "parse_math": False}
                axis.annotate(shown, end, color=style["color"], fontsize=9, family=families, **label)
        axis.set(title=title, xlabel="phase, and classes seen" if seen else "phase", xlim=(0.7, last + 0.3))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda phase, _: _phase_label(round(phase), seen)))
        axis.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="accuracy over all classes seen", ylim=(0, 1))
    if runs and not direct:
        legend = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        for text in legend.get_texts():
            text.set(parse_math=False, family=families)
    return figure


def _labels_fit(runs: Mapping[str, Sequence[Mapping[str, Any]]], kind: str) -> bool:
    """Tell whether lines end together and far enough apart to be named there."""
    ends = [entries[-1] for entries in runs.values() if entries]
    values = sorted(entry[kind]["all"] for entry in ends)
    apart = all(high - low >= _APART for low, high in itertools.pairwise(values))  # False where one is NaN
    return apart and len({entry["phase"] for entry in ends}) == 1 and max(map(len, runs)) <= _LETTERS


def _classes_seen(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[int]:
    """Return the classes seen after each phase; none where runs differ in them."""
    counts: list[list[int]] = [
        np.cumsum([len(entry["classes"]) for entry in entries]).tolist() for entries in runs.values()
    ]
    longest = max(counts, key=len, default=[])
    return longest if all(count == longest[: len(count)] for count in counts) else []


def _phase_label(phase: int, seen: Sequence[int]) -> str:
    return f"{phase}\n{seen[phase - 1]}" if 1 <= phase <= len(seen) else f"{phase}"
