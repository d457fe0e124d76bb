"""Jobs: what a worker does, and what it keeps between them."""

import contextlib
import dataclasses
import functools
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from exmem.errors import ExmemError
from exmem.recipes import Recipe
from exmem.report.tradeoff.cells import Cell, Cells
from exmem.report.tradeoff.design import PROBE
from exmem.report.tradeoff.machine import described, peak_ram_bytes, reset_peak_ram
from exmem.report.tradeoff.own import add_own
from exmem.report.tradeoff.trained import run_trainer
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.parts import load_run_backbone, load_run_data
from exmem.train.probe import Measured, Probe, chosen_rows

__all__ = ["Job", "Outcome", "Setup", "jobs_of", "prepare", "run_job"]

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Job:
    """Cells that are measured together, in one process."""

    name: str
    group: str
    cells: tuple[Cell, ...]

    @property
    def kind(self) -> str:
        """Probe or trainer."""
        return self.cells[0].kind

    @property
    def title(self) -> str:
        """What progress calls it."""
        one, budgets = self.cells[0], [cell.budget for cell in self.cells]
        budget = budgets[0] if len(budgets) == 1 else f"{len(budgets)} budgets"
        return ", ".join([one.data, one.recipe, one.method, budget, f"seed {one.seed}"])


class Outcome(NamedTuple):
    """What became of a cell: done, failed for a reason, or busy, which means that another process has it."""

    key: str
    state: str
    reason: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Setup:
    """What every worker is told: where results go, where own parts are looked for, and how many threads it has."""

    out: Path
    folder: Path
    own: Mapping[str, Mapping[str, str]]
    threads: int


def jobs_of(cells: Iterable[Cell]) -> list[Job]:
    """Return the jobs of cells, one for those of equal numbers; jobs that share most follow one another."""
    by_job: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        by_job.setdefault(cell.job, {}).setdefault(cell.key, cell)
    return [Job(name, next(iter(ones.values())).group, tuple(ones.values())) for name, ones in by_job.items()]


def prepare(setup: Setup) -> None:
    """Make a process ready for jobs."""
    import torch
    import transformers

    torch.set_num_threads(setup.threads)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    add_own(setup.own, setup.folder)


def run_job(job: Job, setup: Setup, tell: Tell) -> list[Outcome]:
    """Run a job, and keep what it measured or why it failed; cells that another process has are left to it."""
    cells, outcomes = Cells(setup.out), list[Outcome]()
    with contextlib.ExitStack() as held:
        mine = []
        for cell in job.cells:
            if not held.enter_context(cells.held(cell)):
                outcomes.append(Outcome(cell.key, "busy"))
            elif (known := cells.result(cell)) is not None:  # another process was faster
                outcomes.append(Outcome(cell.key, "done", seconds=known["wall_seconds"]))
            else:
                mine.append(cell)
        if mine:
            outcomes += _run(mine, cells, tell)
    return outcomes


def _run(mine: Sequence[Cell], cells: Cells, tell: Tell) -> list[Outcome]:
    reset_peak_ram()
    began = time.monotonic()
    try:
        results = _probed(mine, tell) if mine[0].kind == PROBE else [run_trainer(mine[0], cells.place(mine[0]), tell)]
    except Exception as error:  # whatever it is, the other cells go on
        reason = str(error) if isinstance(error, ExmemError) else f"{type(error).__name__}: {error}"
        for cell in mine:
            cells.fail(cell, reason, traceback.format_exc())
        return [Outcome(cell.key, "failed", reason) for cell in mine]
    peak, known, wall = peak_ram_bytes(), described(), (time.monotonic() - began) / len(mine)
    for cell, result in zip(mine, results, strict=True):
        for phase in result["phases"]:
            phase["peak_ram_bytes"] = peak
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        told = {**cell.names, "budget_bytes": cell.budget_bytes, **result, "wall_seconds": wall}
        cells.finish(cell, {**told, **known, "at": at})
    return [Outcome(cell.key, "done", seconds=wall) for cell in mine]


@functools.lru_cache(maxsize=1)
def _data(folder: str, columns: tuple[str, str, str]) -> tuple[ImageText, ImageText]:
    text, label, modalities = columns
    options = {"text_column": text, "label_column": label, "modalities": modalities}
    return load_run_data(TrainConfig.from_json({"data": options}), Path(folder))


_kept: dict[str, Probe] = {}  # of the last group: one at most, for it holds the decoded images of its data


def _probed(mine: Sequence[Cell], tell: Tell) -> list[dict[str, Any]]:
    """Measure a recipe at the budgets of some cells of a probe."""
    first, config = mine[0], TrainConfig.from_json(mine[0].config)
    if first.group not in _kept:
        _kept.clear()
        tell("one pass of the backbone")
        seen = config.data
        train, test = _data(first.folder, (seen.text_column, seen.label_column, seen.modalities))
        _kept[first.group] = Probe(
            load_run_backbone(config),
            train,
            chosen_rows(train.labels, share=first.probe_share, seed=config.seed),
            seed=config.seed,
            test=test,
            shares_trunk=True,
            advance=lambda _: None,
        )
    tell("making exemplars")
    began = time.monotonic()
    budgets = [int(cell.config["max_bytes"]) for cell in mine]
    measured = _kept[first.group].measure(Recipe.of(first.config["recipe"]), budgets, lambda _: None)
    seconds = (time.monotonic() - began) / len(mine)
    return [_result(cell, one, seconds) for cell, one in zip(mine, measured, strict=True)]


def _result(cell: Cell, one: Measured, seconds: float) -> dict[str, Any]:
    accuracy = one.accuracy if one.accuracies else float("nan")
    phase = {
        "phase": 0,
        "bytes": one.disk_bytes + cell.model_bytes,
        "exemplars": one.held,
        "exemplar_bytes": one.disk_bytes / one.held if one.held else float("nan"),
        "average": accuracy,
        "last": accuracy,
        "forgetting": float("nan"),
        "seconds": seconds,
        "step_ms": one.step_ms,
    }
    return {"phases": [phase]}
