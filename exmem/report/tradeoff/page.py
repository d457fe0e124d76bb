"""What a trade-off found as one HTML page that needs nothing else: no network, no other file."""

import importlib.resources
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from exmem.report.tradeoff.design import DEFAULT
from exmem.report.tradeoff.files import replaced
from exmem.report.tradeoff.findings import Findings
from exmem.report.tradeoff.frontier import GROUP
from exmem.report.tradeoff.looks import DASHES, LEVELS
from exmem.report.tradeoff.rows import DEFINITIONS, MEASURES, best_of, matrices, measured, measures_shown, sort_text
from exmem.report.view.page import data_uri
from exmem.report.view.sheet import Sheet

__all__ = ["render_tradeoff", "write_tradeoff"]

_COMPARISONS = ("accuracy at equal bytes", "bytes at equal accuracy", "area")


def write_tradeoff(findings: Findings, path: Path) -> None:
    """Write findings as an HTML page, whole or not at all."""
    # Half of a surrogate pair is no letter: browsers show a reference to it as a replacement character.
    text = render_tradeoff(findings)
    replaced(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="xmlcharrefreplace"))


def render_tradeoff(findings: Findings) -> str:
    """Return findings as an HTML page; whatever a name holds, it never becomes markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("exmem.report.tradeoff"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": data_uri, "sort_text": sort_text}
    axes, measures = _axes(findings), measures_shown(findings)
    return environment.get_template("page.html").render(
        findings=findings,
        axes=axes,
        places={axis: {name: at for at, name in enumerate(names)} for axis, names in axes.items()},
        has_runs=bool((findings.table["kind"] != "probe").any()),
        cells=int(findings.last["cell"].nunique()),
        seeds=sorted(findings.last["seed"].unique().tolist()),
        versions=findings.last.groupby("versions")["cell"].nunique().to_dict(),
        levels=LEVELS,
        default=DEFAULT,
        best=best_of(findings),
        measures=[MEASURES[name] for name in measures],
        accuracies=sum(name in {"average", "last", "last_stored"} for name in measures),
        rows=measured(findings, measures),
        compared={name: list(matrices(findings, name)) for name in _COMPARISONS},
        failures=findings.failures.to_dict("records"),
        galleries=list(_galleries(findings)),
        definitions=DEFINITIONS,
        points=_points(findings, axes),
        style=_part("page.css"),
        script=_part("page.js"),
    )


class _Gallery(NamedTuple):
    data: str
    first: Sheet
    sheets: list[tuple[str, Sheet]]


def _galleries(findings: Findings) -> Iterator[_Gallery]:
    """Yield the sheets of each data set; their originals are the same."""
    for data in dict.fromkeys(one.data for one in findings.sheets):
        sheets = [(one.recipe, one.sheet) for one in findings.sheets if one.data == data]
        yield _Gallery(data, sheets[0][1], sheets)


def _part(name: str) -> Markup:
    return Markup(importlib.resources.files("exmem.report.tradeoff").joinpath("templates", name).read_text("utf-8"))


def _axes(findings: Findings) -> dict[str, list[str]]:
    """Return the names on each axis that have numbers or failed, in the order in which they are shown."""
    last, failures = findings.last, findings.failures
    sizes = dict(zip(last["budget"], last["budget_bytes"], strict=True))
    sizes |= {
        name: size for name, size in zip(failures["budget"], failures["budget_bytes"], strict=True) if name not in sizes
    }
    axes = {axis: list(dict.fromkeys([*last[axis], *failures[axis]])) for axis in GROUP}
    return axes | {"recipe": list(findings.looks), "budget": sorted(sizes, key=lambda name: sizes[name])}


def _points(findings: Findings, axes: dict[str, list[str]]) -> dict[str, Any]:
    """Return what the script draws, as JSON values; names are places in `axes`."""
    points = []
    for one in findings.curves.itertuples(index=False):
        point = {axis: axes[axis].index(getattr(one, axis)) for axis in axes}
        numbers = {key: _known(getattr(one, key)) for key in ("bytes", "accuracy", "low", "high")}
        points.append({**point, **numbers, "measure": one.measure, "n": int(one.n), "front": bool(one.front)})
    looks = [look._asdict() for look in findings.looks.values()]
    return {"axes": axes, "unnamed": DEFAULT, "dashes": DASHES, "looks": looks, "points": points}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.9g}")
