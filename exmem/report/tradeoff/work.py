"""Jobs: what a worker does, and what it keeps between them."""

import contextlib
import dataclasses
import functools
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.errors import ExmemError
from exmem.recipes import Recipe
from exmem.report.machine import described, peak_ram_bytes, reset_peak_ram
from exmem.report.tradeoff.cells import Cell, Cells
from exmem.report.tradeoff.design import PROBE
from exmem.report.tradeoff.own import add_own
from exmem.report.tradeoff.trained import run_trainer
from exmem.train.config import DataConfig, TrainConfig
from exmem.train.data import ImageText
from exmem.train.parts import load_run_backbone, load_run_data
from exmem.train.probe import Probe
from exmem.train.reading import plain
from exmem.train.samples import chosen_rows, told_apart
from exmem.train.stored_sample import ROOM, Measured, Policy, StoredSample

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
        one, words = self.cells[0], []
        for axis in ("method", "budget", "seed"):
            values = dict.fromkeys(cell.names[axis] for cell in self.cells)
            written = f"seed {one.seed}" if axis == "seed" else str(next(iter(values)))
            words.append(written if len(values) == 1 else f"{len(values)} {axis}s")
        return ", ".join([one.data, one.recipe, *words])


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
        measured = _probed(mine, tell) if mine[0].kind == PROBE else [run_trainer(mine[0], cells.place(mine[0]), tell)]
    except Exception as error:  # whatever it is, the other cells go on
        return [_failed(cell, cells, error) for cell in mine]
    peak, known, wall = peak_ram_bytes(), described(), (time.monotonic() - began) / len(mine)
    outcomes = []
    for cell, result in zip(mine, measured, strict=True):
        if isinstance(result, ExmemError):
            outcomes.append(_failed(cell, cells, result))
            continue
        for phase in result["phases"]:
            phase["peak_ram_bytes"] = peak
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        told = {**cell.names, "budget_bytes": cell.budget_bytes, **result, "wall_seconds": wall}
        cells.finish(cell, {**told, **known, "at": at})
        outcomes.append(Outcome(cell.key, "done", seconds=wall))
    return outcomes


def _failed(cell: Cell, cells: Cells, error: Exception) -> Outcome:
    reason = str(error) if isinstance(error, ExmemError) else f"{type(error).__name__}: {error}"
    cells.fail(cell, reason, "".join(traceback.format_exception(error)))
    return Outcome(cell.key, "failed", reason)


@functools.lru_cache(maxsize=1)
def _data(folder: str, seen: DataConfig, *, family: str) -> tuple[ImageText, ImageText]:
    config = TrainConfig.from_json({"data": plain(seen), "backbone": {"family": family}})
    return load_run_data(config, Path(folder))


_kept: dict[str, Probe] = {}  # of the last group: one at most, for it holds the decoded images of its data


def _probed(mine: Sequence[Cell], tell: Tell) -> "list[dict[str, Any] | ExmemError]":
    """Store a recipe once, and measure it as each of some cells says; an error is that of the one cell."""
    first = mine[0]
    config = TrainConfig.from_json(first.config)
    usual = DataConfig()  # in what order classes come is of no matter
    order = {name: getattr(usual, name) for name in ("first_classes", "increments", "class_seed", "scenario")}
    seen = dataclasses.replace(config.data, **order)
    train, test = _data(first.folder, seen, family=config.backbone.family)
    if first.group not in _kept:
        _kept.clear()
        tell("one pass of the backbone")
        seed = config.seed if first.probe["folds"] else 0  # all seeds have the same backbone
        sample = told_apart(train, seed)[0] if first.probe["folds"] else np.arange(len(train))
        _kept[first.group] = Probe(
            load_run_backbone(dataclasses.replace(config, seed=seed)),
            train,
            sample,
            seed=seed,
            test=None if first.probe["folds"] else test,
            shares_trunk=True,
            advance=lambda _: None,
        )
    probe = _kept[first.group]
    tell("making exemplars")
    stored, others = probe.store(Recipe.of(first.config["recipe"])), dict[str, StoredSample]()
    results: list[dict[str, Any] | ExmemError] = []
    for cell in mine:
        tell(f"{cell.method}, {cell.budget}, seed {cell.seed}")
        try:
            results.append(_measured(cell, probe, stored, others, train.labels))
        except ExmemError as error:
            results.append(error)
    return results


def _measured(
    cell: Cell, probe: Probe, stored: StoredSample, others: dict[str, StoredSample], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Measure a cell; `others` are recipes that it may hold as many as."""
    began = time.monotonic()
    budget, policy = int(cell.config["max_bytes"]), Policy.of(TrainConfig.from_json(cell.config), labels)
    rows = None if cell.probe["folds"] else chosen_rows(labels, share=cell.probe["share"], seed=cell.seed)
    if cell.as_many_as is not None:
        other = Recipe.of(cell.as_many_as)
        if other.name not in others:
            others[other.name] = probe.store(other)
        rows = others[other.name].held(budget, rows=rows, policy=policy, seed=cell.seed)
        budget = ROOM
    one = stored.measure(budget, rows=rows, policy=policy, seed=cell.seed)
    return _result(cell, one, time.monotonic() - began)


def _result(cell: Cell, one: Measured, seconds: float) -> dict[str, Any]:
    accuracy = one.accuracy if one.accuracies else float("nan")
    phase = {
        "phase": 0,
        "bytes": one.disk_bytes + one.head_bytes + cell.model_bytes,
        "exemplars": one.held,
        "exemplar_bytes": one.disk_bytes / one.held if one.held else float("nan"),
        "average": accuracy,
        "last": accuracy,
        "forgetting": float("nan"),
        "seconds": seconds,
        "last_stored": float(np.mean(one.as_stored)) if one.as_stored else float("nan"),
        "step_ms": one.step_ms,
    }
    return {"phases": [phase]}
