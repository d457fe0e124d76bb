"""`exmem compare`: runs that exist, side by side."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from exmem.cli.output import make_console, print_table, write_json
from exmem.store import format_bytes

if TYPE_CHECKING:
    from exmem.report.compare import Measure

__all__ = ["compare"]


def compare(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")],
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("compare.png"),
    json: bool = False,
) -> None:
    """Compare runs of `exmem train`: mean and spread over the seeds of each configuration, as a table and an image.

    Runs that differ in their seeds alone (`seed`, `data.class_seed`) are put together. Runs that are not finished are
    left out and told.

    Parameters
    ----------
    runs : tuple of Path
        Folders of runs, one or more; those of a trade-off are FOLDER/cells/*/run.
    out : Path
        Where the image goes, a PNG file that is replaced.
    json : bool
        Answer with JSON instead of a table.
    """
    from exmem.errors import DataError, SchemaError
    from exmem.report.compare import compared, draw_comparison

    if not runs:
        raise SchemaError("expected the folders of one or more runs, got none")
    groups, notes = compared(runs)
    console = make_console(stderr=json)
    for note in notes:
        console.print(note, soft_wrap=True)
    try:
        draw_comparison(groups, out)
    except OSError as error:
        raise DataError(f"{out}: the image cannot be written ({error}); choose another file with --out") from error
    if json:
        document = [
            {"name": group.name, "runs": [*map(str, group.folders)]}
            | {name: _plain(measure) for name, measure in group.measures().items()}
            for group in groups
        ]
        write_json({"image": out, "groups": document})
        return
    rows = []
    for group in sorted(groups, key=lambda one: -one.measures()["average"].mean):
        told = group.measures()
        accuracies = (_percent(told[name]) for name in ("average", "last", "forgetting"))
        held = f"{told['exemplars'].mean:,.0f}", format_bytes(round(told["kept_bytes"].mean))
        rows.append((group.name, *accuracies, *held, f"{told['seconds'].mean:,.0f} s", f"{len(group.runs)}"))
    columns = ("run", "average", "last", "forgetting", "exemplars", "bytes", "time", "runs")
    print_table(console, columns, rows)
    console.print(
        "Accuracy of the head in per cent, mean ± standard deviation over runs: the average over phases, after the "
        "last, and how far old classes fell. Bytes with all that counts, after the last phase.",
        soft_wrap=True,
    )
    console.print(f"Accuracy over phases: {out}", soft_wrap=True)


def _plain(measure: "Measure") -> dict[str, float | None]:
    return {"mean": measure.mean, "deviation": None if isnan(measure.deviation) else measure.deviation}


def _percent(measure: "Measure") -> str:
    spread = "" if isnan(measure.deviation) else f" ± {100 * measure.deviation:.1f}"
    return f"{100 * measure.mean:.1f}{spread}"
