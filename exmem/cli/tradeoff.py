"""`exmem tradeoff`: what a byte buys, over recipes, budgets, seeds, methods and data sets."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from exmem.cli.ending import FAILED
from exmem.cli.output import check_folder, make_console, print_table, write_json
from exmem.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from exmem.report.tradeoff import Executor, Slice, Tradeoff

__all__ = ["tradeoff"]

_WRITTEN = {".png": "Frontier", ".svg": "Frontier", ".csv": "Comparisons", ".html": "Page"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ray:
    """What each job takes of a Ray cluster.

    Parameters
    ----------
    cpus : int
        Cores of a job, and its threads.
    gpus : float
        Accelerators of a job; a part of one is shared.
    """

    cpus: int = 1
    gpus: float = 0.0


def tradeoff(  # noqa: PLR0913 - what a sweep may be asked, each with a default
    config: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")],
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    jobs: Annotated[int, tyro.conf.arg(metavar="N")] = 1,
    executor: Literal["processes", "ray"] = "processes",
    ray: Ray = Ray(),
    slice: Annotated[str, tyro.conf.arg(metavar="I/N")] = "1/1",  # noqa: A002 - the name of the option
    retry: bool = False,
    dry_run: bool = False,
    baseline: Annotated[str | None, tyro.conf.arg(metavar="RECIPE")] = None,
    json: bool = False,
) -> None:
    """Measure recipes x budgets x seeds x methods x data sets, each cell a job of its own, and write one tidy table.

    Beside the table it draws the frontier, compares all recipes with one, and writes a page that shows all of it.

    Cells that are done are never run again, also when the configuration grows; the same command goes on after an
    interrupt or a kill. A cell that fails is told with its reason, and the others go on; the exit code is then 1.

    Parameters
    ----------
    config : Path
        YAML or JSON file: data, recipes and budgets, and if wanted seeds, methods, kinds (probe, trainer), leave_out,
        base (options of exmem train), best_of, own (parts of one's own) and probe.
    out : Path
        Folder for table.csv, table.parquet, failures.csv, comparisons.csv, page.html, an image frontier-* a kind, data
        set and method (PNG and SVG), sheets/ with exemplars that the page shows, and cells/ with a folder a cell.
        Several commands may share it: a cell that one runs is left out by the others.
    jobs : int
        Processes here, which share the cores.
    executor : {"processes", "ray"}
        Where cells run: in processes here, or on the Ray cluster that RAY_ADDRESS names (else one of this machine),
        whose nodes see the same folders.
    ray : Ray
        What a job takes of the cluster.
    slice : str
        Run the I-th of N parts alone, I from 1, as for an array of jobs; each cell is in one part.
    retry : bool
        Run cells again that failed before.
    dry_run : bool
        Say how many cells are done, failed and left, with an estimate, and run nothing.
    baseline : str, optional
        Recipe, or name of best_of, that all others are compared with; the first of best_of when left out, else
        half_jpeg, else the first recipe.
    json : bool
        Answer with JSON: the rows of the table, failures, and all files; with --dry-run how many cells there are.
    """
    import transformers

    from exmem.report.tradeoff import Design, ShownProgress, Slice, Tradeoff
    from exmem.report.tradeoff.comparisons import chosen_baseline

    if jobs < 1:
        raise SchemaError(f"--jobs must be 1 or more, got {jobs}")
    part, console = Slice.read(slice), make_console(stderr=json)
    check_folder(out)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    design = Design.read(config)
    names = [recipe.name for recipe in design.recipes]
    chosen_baseline(names, design.best_of, baseline)  # refused before anything runs
    sweep = Tradeoff(design, out, tell=lambda text: console.print(text, soft_wrap=True))
    if dry_run:
        _tell_state(console, sweep, part, jobs=jobs, retry=retry, json=json)
        return
    done = sum(sweep.counts(part).values()) - sum(len(job.cells) for job in sweep.left(part, retry=retry))
    runs, workers = _executor(executor, sweep, jobs, ray)
    try:
        with ShownProgress(console, workers=workers, done=done) as progress:
            table = sweep.run(runs, part, retry=retry, watcher=progress)
        if not json:
            _show(console, sweep, table)
    finally:  # an interrupted sweep is shown, too
        files = _write(console, sweep, config, baseline)
    if json:
        write_json(_document(sweep, part, table, files))
    if sweep.counts(part)["failed"]:
        raise SystemExit(FAILED)


def _document(sweep: "Tradeoff", part: "Slice", table: "pd.DataFrame", files: list[Path]) -> dict[str, Any]:
    from exmem.report.tradeoff import failures_of

    failures = failures_of(sweep.cells, sweep.known)
    return {
        "cells": _cells(sweep, part),
        "table": table.rename(columns={"bytes": "kept_bytes"}).to_dict("records"),
        "failures": failures.to_dict("records"),
        "files": [*(sweep.out / name for name in ("table.csv", "table.parquet")), *files],
    }


def _cells(sweep: "Tradeoff", part: "Slice") -> dict[str, int]:
    counts = sweep.counts(part)
    return {state: counts[state] for state in ("done", "failed", "left")}


def _write(console: "Console", sweep: "Tradeoff", config: Path, baseline: str | None) -> list[Path]:
    from exmem.report.tradeoff.output import findings_of, write_output

    findings = findings_of(
        sweep,
        baseline=baseline,
        configuration=config.read_text(encoding="utf-8", errors="replace"),
        command=shlex.join(["exmem", *sys.argv[1:]]),
        tell=lambda text: console.print(text, soft_wrap=True),
    )
    files = [*write_output(findings, sweep.out)]
    for path in files:
        console.print(f"{_WRITTEN[path.suffix]}: {path}", soft_wrap=True)
    return files


def _executor(name: str, sweep: "Tradeoff", jobs: int, ray: Ray) -> "tuple[Executor, int]":
    """Return what runs jobs, and how many at once."""
    from exmem.report.tradeoff import Processes, Setup, cores

    setup = Setup(sweep.out, sweep.design.folder, sweep.design.own, threads=max(1, cores() // jobs))
    if name == "processes":
        return Processes(setup, jobs), jobs
    from exmem.report.tradeoff.on_ray import OnRay

    on_ray = OnRay(dataclasses.replace(setup, threads=ray.cpus), cpus=ray.cpus, gpus=ray.gpus)
    return on_ray, on_ray.workers


def _tell_state(console: "Console", sweep: "Tradeoff", part: "Slice", *, jobs: int, retry: bool, json: bool) -> None:
    counts = _cells(sweep, part)
    left = [cell for job in sweep.left(part, retry=retry) for cell in job.cells]
    if json:
        seconds = sweep.estimate.of(left).seconds / jobs
        write_json({"cells": counts, "to_run": len(left), "estimate_s": seconds or None})
        return
    console.print(f"{counts['done']:,} cells are done, {counts['failed']:,} failed, {counts['left']:,} are left")
    if left:
        told = sweep.estimate.of(left).text(jobs) or "how long they take is not known: none of their kind is done"
        console.print(f"To run: {len(left):,} cells with --jobs {jobs}; {told}")


def _show(console: "Console", sweep: "Tradeoff", table: "pd.DataFrame") -> None:
    from exmem.report.tradeoff import failures_of, summaries

    for summary in summaries(table, sweep.cells):
        console.print(summary.title, soft_wrap=True)
        print_table(console, summary.columns, summary.rows)
    console.print(
        "Exemplars held, and accuracy in per cent, mean ± standard deviation over seeds: of a probe one, of runs the "
        "average over phases and the last; - where nothing fits, or nothing was measured.",
        soft_wrap=True,
    )
    failures = failures_of(sweep.cells, sweep.known)
    if len(failures):
        console.print(f"{len(failures):,} cells failed, the first: {failures['reason'].iloc[0]}", soft_wrap=True)
        console.print(f"Failures: {sweep.out / 'failures.csv'}; --retry runs them again", soft_wrap=True)
    console.print(f"Table: {sweep.out / 'table.csv'}, {sweep.out / 'table.parquet'}", soft_wrap=True)
