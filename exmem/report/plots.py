"""Images of runs."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from exmem.report.view.fonts import find_families

__all__ = ["draw_accuracy", "draw_class_bytes", "draw_matrix", "plot_accuracy", "plot_class_bytes", "plot_matrix"]

_KINDS = (("head", "Head"), ("ncm", "Nearest class mean"))
_APART = 0.05  # of the axis: the height of a label
_LETTERS = 24  # of a label beside its line
_CELLS = 20  # of a side of a matrix that is labelled whole
_NAMES = 40  # of classes below bars
_STYLES = ("-", "--", ":", "-.")  # each with all ten colours


def draw_accuracy(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the accuracy after each phase of each run, given its metrics by its name, as a PNG file."""
    plot_accuracy(runs).savefig(path, dpi=120, format="png")


def draw_matrix(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the accuracy of a run on the classes of each phase after each phase, as a PNG file."""
    plot_matrix(entries).savefig(path, dpi=120, format="png")


def plot_matrix(entries: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot a row for each phase that was learnt, and a column for the classes of each."""
    number = len(entries)
    values = np.full((number, number), np.nan)
    for row, entry in enumerate(entries):
        values[row, : row + 1] = entry["head"]["by_phase"]
    side = min(9.0, 2.6 + 0.55 * number)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(values, cmap="viridis", vmin=0, vmax=1)
    if number <= _CELLS:
        for row, column in itertools.product(range(number), repeat=2):
            if not np.isnan(values[row, column]):
                colour = "black" if values[row, column] > 0.6 else "white"
                axis.text(column, row, f"{100 * values[row, column]:.0f}", ha="center", va="center", color=colour)
    ticks = range(number) if number <= _CELLS else range(0, number, -(-number // _CELLS))
    names = [f"{tick + 1}" for tick in ticks]
    axis.set_xticks([*ticks], names)
    axis.set_yticks([*ticks], names)
    axis.set(xlabel="classes of phase", ylabel="after phase")
    figure.colorbar(image, ax=axis, label="accuracy of the head", shrink=0.8, format=PercentFormatter(xmax=1))
    return figure


def draw_class_bytes(names: Sequence[str], totals: NDArray[np.int64], counts: NDArray[np.int64], path: Path) -> None:
    """Draw the bytes that the exemplars of each class take, and how many they are, as a PNG file."""
    plot_class_bytes(names, totals, counts).savefig(path, dpi=120, format="png")


def plot_class_bytes(names: Sequence[str], totals: NDArray[np.int64], counts: NDArray[np.int64]) -> Figure:
    """Plot a bar for each class, in the order in which they came; of many classes only some are named."""
    figure = Figure(figsize=(min(14.0, 3.5 + 0.32 * len(names)), 4.2), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(names))
    axis.bar(places, totals / 1000, color="C0")
    families, lacking = find_families(set("".join(names)))
    every = -(-len(names) // _NAMES)
    shown = ["".join(f"<U+{ord(one):04X}>" if one in lacking else one for one in name)[:_LETTERS] for name in names]
    axis.set_xticks(places[::every], shown[::every], rotation=60, ha="right", fontsize=8, family=families)
    for label in axis.get_xticklabels():
        label.set_parse_math(False)
    if len(names) <= _NAMES:
        for place, total, count in zip(places, totals, counts, strict=True):
            axis.annotate(
                f"{count:,}", (place, total / 1000), (0, 2), textcoords="offset points", ha="center", fontsize=7
            )
    axis.set(ylabel="kB of exemplars", title="Bytes of each class, and its exemplars", xlim=(-0.6, len(names) - 0.4))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    return figure


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
