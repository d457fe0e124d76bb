"""Tables and a picture of what was measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.report.rows import PROBE, TRAINED, Row


def write_report(found: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Write `report.md` and `report.png` from all entries."""
    text = [_probe_table(found["probe"]), _stored_table(found["probe"]), _trained_table(found["trained"])]
    text.append(_shortcut_table(found["trained"]))
    (out / "report.md").write_text("\n".join(part for part in text if part), encoding="utf-8")
    if found["probe"]:
        _draw(found["probe"], out / "report.png")


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation in per cent; the mean alone of a single value."""
    numbers = 100 * np.array(values, np.float64)
    if len(numbers) == 0 or np.isnan(numbers).any():
        return "-"
    return f"{numbers.mean():.1f} ± {numbers.std(ddof=1):.1f}" if len(numbers) > 1 else f"{numbers.mean():.1f}"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *lines))


def _of(entries: list[dict[str, Any]], row: Row, **wanted: Any) -> list[dict[str, Any]]:
    return [e for e in entries if e["key"] == row.key and all(e[name] == value for name, value in wanted.items())]


def _grouped(rows: Sequence[Row], line: Any) -> list[list[str]]:
    lines, group = [], None
    for row in rows:
        cells = line(row)
        if cells is None:
            continue
        if row.group != group:
            group = row.group
            lines.append([f"**{group}**", *[""] * len(cells)])
        lines.append([row.name, *cells])
    return lines


def _probe_table(entries: list[dict[str, Any]]) -> str:
    budgets = sorted({entry["budget"] for entry in entries})

    def line(row: Row) -> list[str] | None:
        if not _of(entries, row):
            return None
        own = _of(entries, row)
        cells = [f"{100 * own[0][name]:.0f}" if name in own[0] else "" for name in ("kept_ratio", "border_share")]
        for budget in budgets:
            at = _of(entries, row, budget=budget)
            cells.append(f"{np.mean([e['exemplars'] for e in at]):.0f}")
            cells += [spread([e[name] for e in at]) for name in ("image", "both")]
        return cells

    heads = ["recipe", "kept %", "at the border %"]
    for budget in budgets:
        heads += [f"exemplars in {budget // 1000} kB", "image", "both"]
    return _table(heads, _grouped(PROBE, line)) if entries else ""


def _stored_table(entries: list[dict[str, Any]]) -> str:
    rows = [row for row in PROBE if row.stored_test and _of(entries, row)]
    budgets = sorted({entry["budget"] for entry in entries})
    lines = []
    for row in rows:
        cells = []
        for budget in budgets:
            at = _of(entries, row, budget=budget)
            cells += [spread([e[name] for e in at]) for name in ("image", "image_stored", "both", "both_stored")]
        lines.append([f"{row.group}: {row.name}", *cells])
    heads = ["recipe"]
    for budget in budgets:
        heads += [f"{budget // 1000} kB: image, clean test", "as stored", "both, clean test", "as stored"]
    return _table(heads, lines) if lines else ""


def _trained_table(entries: list[dict[str, Any]]) -> str:
    keys = sorted({(e["modalities"], e["budget"]) for e in entries}, key=lambda key: (key[0] != "image", key[1]))

    def line(row: Row) -> list[str] | None:
        if not _of(entries, row):
            return None
        cells = []
        for modalities, budget in keys:
            at = _of(entries, row, modalities=modalities, budget=budget)
            cells.append(f"{np.mean([e['exemplars'] for e in at]):.0f}" if at else "-")
            cells += [spread([e[name] for e in at]) for name in ("linear_average", "linear_last", "ncm_average")]
        return cells

    heads = ["run"]
    for modalities, budget in keys:
        heads += [f"{modalities}, {budget // 1000} kB: exemplars", "average", "last", "NCM average"]
    return _table(heads, _grouped(TRAINED, line)) if entries else ""


def _shortcut_table(entries: list[dict[str, Any]]) -> str:
    keys = sorted({(e["modalities"], e["budget"]) for e in entries}, key=lambda key: (key[0] != "image", key[1]))
    lines = []
    for row in TRAINED:
        for modalities, budget in keys:
            at = [e for e in _of(entries, row, modalities=modalities, budget=budget) if "linear_stored_old" in e]
            if at:
                names = ("linear_old", "linear_new", "linear_stored_old", "linear_stored_new")
                lines.append(
                    [
                        f"{row.name}, {modalities}, {budget // 1000} kB",
                        *(spread([e[name] for e in at]) for name in names),
                    ]
                )
    heads = ["run", "old classes, clean", "new classes, clean", "old, masked test", "new, masked test"]
    return _table(heads, lines) if lines else ""


def _draw(entries: list[dict[str, Any]], path: Path) -> None:
    budgets = sorted({entry["budget"] for entry in entries})
    figure = Figure(figsize=(13, 0.24 * len(PROBE) + 1.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    rows = [row for row in PROBE if _of(entries, row)]
    for axis, name in zip(axes, ("image", "both"), strict=True):
        for budget, colour in zip(budgets, ("tab:blue", "tab:orange"), strict=False):
            values = [[100 * e[name] for e in _of(entries, row, budget=budget)] for row in rows]
            mean, deviation = [float(np.mean(v)) for v in values], [float(np.std(v, ddof=1)) for v in values]
            places = np.arange(len(rows))
            axis.errorbar(mean, places, xerr=deviation, fmt="o", ms=4, color=colour, label=f"{budget // 1000} kB")
        axis.set(title=f"probe, {name}", xlabel="accuracy on clean pictures, %")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(rows)), [f"{row.group}: {row.name}" for row in rows], fontsize=7)
    axes[0].margins(y=0.01)
    axes[0].invert_yaxis()
    axes[1].legend()
    figure.savefig(path, dpi=110)
