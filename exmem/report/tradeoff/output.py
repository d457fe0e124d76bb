"""What `exmem tradeoff` writes beside its tables: images of the frontier, comparisons, and a page of all."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exmem.report.tradeoff.cells import Cell
from exmem.report.tradeoff.comparisons import chosen_baseline, write_comparisons
from exmem.report.tradeoff.draw import draw_frontiers
from exmem.report.tradeoff.findings import Findings
from exmem.report.tradeoff.page import write_tradeoff
from exmem.report.tradeoff.run import Tradeoff
from exmem.report.tradeoff.sheets import bounded, recipe_sheets
from exmem.report.tradeoff.table import failures_of, table_of

__all__ = ["findings_of", "write_output"]


def findings_of(
    sweep: Tradeoff,
    *,
    baseline: str | None = None,
    configuration: str = "",
    command: str = "",
    tell: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Return what a trade-off has found so far; SchemaError if no recipe is called as the baseline."""
    table, names = table_of(sweep.cells, sweep.known), [recipe.name for recipe in sweep.design.recipes]
    done = [cell for cell in sweep.cells if sweep.known.state(cell) == "done"]
    sheets, notes = recipe_sheets(done, sweep.out / "sheets", tell)
    sheets, left_out = bounded(sheets)
    return Findings(
        table=table,
        failures=failures_of(sweep.cells, sweep.known),
        recipes=names,
        best_of=sweep.design.best_of,
        baseline=chosen_baseline(names, sweep.design.best_of, baseline),
        levels={one.name: "nothing" if one.is_empty else one.level for one in sweep.design.recipes},
        configuration=configuration,
        command=command,
        written=time.strftime("%Y-%m-%d %H:%M"),
        left=sum(sweep.known.state(cell) == "left" for cell in sweep.cells),
        machines=_machines(sweep, done),
        sheets=sheets,
        notes=[*notes, *left_out],
    )


def write_output(findings: Findings, out: Path) -> list[Path]:
    """Write images, comparisons.csv and page.html into a folder; nothing where nothing was measured or failed."""
    if not len(findings.table) and not len(findings.failures):
        return []
    paths = draw_frontiers(findings, out) if len(findings.curves) else []
    write_comparisons(findings.comparisons, out / "comparisons.csv")
    write_tradeoff(findings, out / "page.html")
    return [*paths, out / "comparisons.csv", out / "page.html"]


def _machines(sweep: Tradeoff, done: list[Cell]) -> list[str]:
    """Say on what the cells were measured, each kind of machine once."""
    texts: dict[str, int] = {}
    for cell in done:
        machine: dict[str, Any] = (sweep.known.result(cell) or {}).get("machine", {})
        if machine:
            accelerator = machine.get("accelerator") or "no accelerator"
            text = f"{machine['system']} {machine['machine']}, {machine['cores']} cores, {accelerator}"
            texts[text] = texts.get(text, 0) + 1
    return [f"{text} ({count:,} cells)" for text, count in texts.items()]
