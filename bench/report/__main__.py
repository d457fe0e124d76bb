"""`python -m bench.report OUT` measures everything and writes the tables; it goes on where it was stopped.

`--part probe` and `--part trained` measure a part, `--part gallery` draws what the recipes make of the same pictures;
`--tables` only writes what was measured so far.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.report import trained
from bench.report.rows import PROBE, TRAINED
from bench.report.tables import write_report
from bench.report.work import PROBE_DATA, TRAINED_DATA, draw, probe_rows, start, trained_cells
from exmem.backbones.packaged import dinov2_small, minilm
from exmem.cli.demo.stickers import build_stickers


def measure(work: Callable[[Any], list[dict[str, Any]]], jobs: Iterable[Any], file: Path, *, out: Path) -> None:
    """Run jobs in two processes; each job's entries are written when it is done."""
    jobs = list(jobs)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), initializer=start, initargs=(out,))
    with pool, Progress(TextColumn(file.stem), *columns) as progress:
        bar = progress.add_task(file.stem, total=len(jobs))
        try:
            for done in as_completed([pool.submit(work, job) for job in jobs]):
                with file.open("a", encoding="utf-8") as lines:
                    lines.writelines(json.dumps(entry) + "\n" for entry in done.result())
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what runs is finished, nothing else is begun
            raise


def entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=["probe", "trained", "gallery"])
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    files = {name: out / f"{name}.jsonl" for name in ("probe", "trained")}
    if not given.tables:
        console = Console()
        dinov2_small(progress=console.print), minilm(progress=console.print)
        if given.part in {None, "probe"}:
            done = {entry["key"] for entry in entries(files["probe"])}
            rows = [row for row in PROBE if row.key not in done and given.only in row.key]
            build_stickers(PROBE_DATA, progress=console.print)
            measure(probe_rows, ([row] for row in rows), files["probe"], out=out)
        if given.part in {None, "trained"}:
            ready = {tuple(e[k] for k in ("key", "seed", "budget", "modalities")) for e in entries(files["trained"])}
            cells = [
                (row, seed, budget, modalities)
                for seed in trained.SEEDS
                for modalities in trained.MODALITIES
                for budget in trained.BUDGETS
                for row in TRAINED
                if (row.key, seed, budget, modalities) not in ready
                and given.only in row.key
                and (row.only is None or modalities == row.only)
            ]
            build_stickers(TRAINED_DATA, progress=console.print)
            measure(trained_cells, ([cell] for cell in cells), files["trained"], out=out)
        if given.part in {None, "gallery"}:
            start(out)
            draw(out / "gallery.png")
    write_report({name: entries(file) for name, file in files.items()}, out)


if __name__ == "__main__":
    main()
