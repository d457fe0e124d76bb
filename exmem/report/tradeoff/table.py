"""The tidy table of a trade-off: a row a cell and phase, and what failed beside it."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from exmem.report.tradeoff.cells import Cell, Cells
from exmem.report.tradeoff.files import replaced

__all__ = ["COLUMNS", "FAILURE_COLUMNS", "failures_of", "table_of", "write_tables"]

_NAMES = ["kind", "data", "recipe", "method", "budget", "budget_bytes", "seed"]
_ACCURACIES = ["average", "last", "last_stored", "forgetting"]
_MEASURES = ["bytes", "exemplars", "exemplar_bytes", *_ACCURACIES, "seconds", "step_ms"]
COLUMNS = [*_NAMES, "phase", *_MEASURES, "peak_ram_bytes", "versions", "cell"]
"""kind (probe or trainer), data, recipe, method, budget as it is written and in bytes, seed, phase (from 0); bytes on
the disk after the phase, with what the head carries and, where the budget counts the model, that; exemplars held and
bytes of the memory over their number; average incremental accuracy, accuracy over all classes seen, the same on test
examples that went through a memory as exemplars do (with `loop.test_stored_form`, else empty; the trainer leaves the
codec out) and forgetting up to the phase, 0..1 (a probe has none: empty); seconds of the phase, those of a probe
without what all its cells share; ms of a replay step of 64, from the memory to features (of a run only with its last
phase); peak of RAM of the process while it ran the cell's job; versions; folder of the cell."""
FAILURE_COLUMNS = [*_NAMES, "reason", "cell"]
"""The same names, and why the cell failed."""


def table_of(cells: Iterable[Cell], known: Cells) -> pd.DataFrame:
    """Return what was measured so far of some cells, by their names of today."""
    rows = []
    for cell in cells:
        result = known.result(cell)
        for phase in result["phases"] if result else []:
            row = {
                **_names(cell),
                **phase,
                "versions": result["versions"] if result else "",
                "cell": _cell(cell, known),
            }
            rows.append(row)
    table = pd.DataFrame(rows, columns=COLUMNS)
    measures = [*_MEASURES, "peak_ram_bytes"]
    whole = ["bytes", "exemplars", "peak_ram_bytes"]
    table[measures] = table[measures].astype("float64")
    table[[*whole, "phase", "seed", "budget_bytes"]] = table[[*whole, "phase", "seed", "budget_bytes"]].astype("int64")
    return table


def failures_of(cells: Iterable[Cell], known: Cells) -> pd.DataFrame:
    """Return which cells failed, and why."""
    rows = []
    for cell in cells:
        failure = known.failure(cell)
        if failure is not None:
            rows.append({**_names(cell), "reason": failure["reason"], "cell": _cell(cell, known)})
    return pd.DataFrame(rows, columns=FAILURE_COLUMNS)


def write_tables(cells: Iterable[Cell], known: Cells, out: Path) -> pd.DataFrame:
    """Write table.csv, table.parquet and failures.csv into a folder, each whole or not at all; return the table."""
    cells = list(cells)
    table, failures = table_of(cells, known), failures_of(cells, known)
    replaced(out / "table.csv", lambda path: table.to_csv(path, index=False))
    replaced(out / "table.parquet", lambda path: table.to_parquet(path, index=False))
    replaced(out / "failures.csv", lambda path: failures.to_csv(path, index=False))
    return table


def _names(cell: Cell) -> dict[str, object]:
    return {**cell.names, "budget_bytes": cell.budget_bytes}


def _cell(cell: Cell, known: Cells) -> str:
    return f"cells/{known.place(cell).name}"
