"""Runs that exist, side by side: mean and spread over the seeds of each configuration."""

import hashlib
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from exmem.errors import DataError
from exmem.report.view.fonts import find_families
from exmem.train.folder import RunFolder
from exmem.train.metrics import average_incremental_accuracy, forgetting, kept_bytes, last_accuracy
from exmem.train.reading import flat
from exmem.train.scenario import scenario_of_run

__all__ = ["Group", "Measure", "compared", "draw_comparison", "plot_comparison"]

_SEEDS = ("seed", "data.class_seed")
_HIDDEN = ("recipe.name", "loop.keep_hidden", "loop.num_workers")  # they change no number
_STYLES = ("-", "--", ":", "-.")  # each with all ten colours

_WIDTH = 110  # letters of a line of the legend

Entries = Sequence[Mapping[str, Any]]


class Measure(NamedTuple):
    """Mean, and sample standard deviation over runs; NaN of a single one."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Measure":
        """Measure some values."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))


class Group(NamedTuple):
    """Runs that differ in their seeds alone, by the name of what sets them apart from the others."""

    name: str
    folders: tuple[Path, ...]
    runs: tuple[Entries, ...]

    def measures(self) -> dict[str, Measure]:
        """Return what the runs come to, after their last phases."""
        overall = [[entry["head"]["all"] for entry in entries] for entries in self.runs]
        by_phase = [[entry["head"]["by_phase"] for entry in entries] for entries in self.runs]
        last = [entries[-1] for entries in self.runs]
        return {
            "average": Measure.of([average_incremental_accuracy(values) for values in overall]),
            "last": Measure.of([last_accuracy(values) for values in overall]),
            "forgetting": Measure.of([forgetting(rows) for rows in by_phase]),
            "exemplars": Measure.of([entry["exemplars"] for entry in last]),
            "kept_bytes": Measure.of([kept_bytes(entry) for entry in last]),
            "seconds": Measure.of([sum(entry["seconds"] for entry in entries) for entries in self.runs]),
        }

    def curve(self) -> list[Measure]:
        """Return the accuracy over all classes seen after each phase."""
        return [Measure.of([entry["head"]["all"] for entry in phase]) for phase in zip(*self.runs, strict=True)]


class _Run(NamedTuple):
    folder: Path
    options: dict[str, Any]
    entries: Entries


def compared(folders: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """Group the runs of some folders; also return which runs are not finished, and so left out.

    A folder that is given twice counts once, and runs of the same seeds are told: they are copies. DataError if a
    folder holds no run, or no run is finished.
    """
    groups: dict[str, list[_Run]] = {}
    notes = []
    for folder in {os.path.realpath(folder): folder for folder in folders}.values():
        run = RunFolder(folder)
        if not folder.is_dir() or not run.is_run:
            raise DataError(f"{folder}: expected the folder of a run, with run.json; give those of `exmem train`")
        config, data = run.described()
        scenario = scenario_of_run(run, config.data, data["classes"])
        entries, phases = run.metrics(), len(scenario)
        if len(entries) > phases or not all("head" in entry for entry in entries):
            raise DataError(f"{run.metrics_file}: expected {phases} phases with measures of a head; leave this run out")
        if len(entries) < phases:
            notes.append(f"{folder}: {len(entries)} of {phases} phases are finished; left out")
            continue
        contents = {f"data.{split}": data[split].partition("-")[0] for split in ("train", "test")}
        options = dict(flat(config.to_json())) | contents | {"data.class_seed": config.data.order_seed}
        if config.data.order_seed is None:  # a file, by what is in it
            named = json.dumps(scenario.named(data["classes"]))
            options["data.scenario"] = f"file {hashlib.sha256(named.encode()).hexdigest()[:8]}"
        same = {key: value for key, value in options.items() if key not in {*_SEEDS, *_HIDDEN}}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(_Run(folder, options, entries))
    for runs in groups.values():
        seeds = [tuple(run.options[key] for key in _SEEDS) for run in runs]
        if len(set(seeds)) < len(seeds):
            notes.append(f"{', '.join(str(run.folder) for run in runs)}: the same seeds more than once, as copies have")
    if not groups:
        raise DataError(f"no run is finished: {'; '.join(notes[:3])}; run `exmem train` to the end")
    names = _names([runs[0].options for runs in groups.values()])
    return [
        Group(name, tuple(run.folder for run in runs), tuple(run.entries for run in runs))
        for name, runs in zip(names, groups.values(), strict=True)
    ], notes


def _names(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name configurations by recipe and budget, and by what else differs."""
    recipes = [{key: value for key, value in one.items() if key.startswith("recipe.")} for one in options]
    by_name: dict[str, set[str]] = {}
    for recipe in recipes:
        by_name.setdefault(recipe["recipe.name"], set()).add(json.dumps(recipe, sort_keys=True))
    tells_recipe = all(len(documents) == 1 for documents in by_name.values())
    shown = []
    for key in sorted({key for one in options for key in one} - {"max_bytes", *_SEEDS, *_HIDDEN}):
        differs = len({json.dumps(one.get(key), sort_keys=True) for one in options}) > 1
        if differs and not (tells_recipe and key.startswith("recipe.")):
            shown.append(key)
    return [
        ", ".join([one["recipe.name"], one["max_bytes"], *(f"{key}={_text(key, one.get(key))}" for key in shown)])
        for one in options
    ]


def _text(key: str, value: Any) -> str:
    return str(value)[:8] if key in {"data.train", "data.test"} else str(value)  # keys of what data holds, in short


def draw_comparison(groups: Sequence[Group], path: Path) -> None:
    """Draw the accuracy after each phase, a line a group, as a PNG file."""
    plot_comparison(groups).savefig(path, dpi=120, format="png")


def plot_comparison(groups: Sequence[Group]) -> Figure:
    """Plot the mean over the runs of each group, and a band of one standard deviation; best average first."""
    ranked = sorted(groups, key=lambda group: -group.measures()["average"].mean)
    lines = [textwrap.wrap(group.name, _WIDTH) for group in ranked]
    figure = Figure(figsize=(9, 4.8 + 0.17 * sum(map(len, lines))), layout="constrained")
    axis = figure.subplots()
    for at, group in enumerate(ranked):
        curve = group.curve()
        phases, means = np.arange(1, len(curve) + 1), np.array([point.mean for point in curve])
        deviations, colour = np.array([point.deviation for point in curve]), f"C{at % 10}"
        name = "\n".join(lines[at]) + (f" ({len(group.runs)} runs)" if len(group.runs) > 1 else "")
        style = _STYLES[at // 10 % len(_STYLES)]
        axis.plot(phases, means, color=colour, linestyle=style, marker="o", markersize=3, label=name)
        if len(group.runs) > 1:
            axis.fill_between(phases, means - deviations, means + deviations, color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel="phase", ylabel="accuracy over all classes seen", ylim=(0, 1))
    axis.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    axis.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside lower left", frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set(parse_math=False, family=find_families(text.get_text())[0])
    return figure
