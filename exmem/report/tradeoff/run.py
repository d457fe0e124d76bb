"""A trade-off in a folder: which cells are left, running them, and the table of what was measured."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from exmem.errors import SchemaError
from exmem.report.tradeoff.cells import Cell, Cells, State, cells_of
from exmem.report.tradeoff.design import PROBE, Design
from exmem.report.tradeoff.executors import Executor
from exmem.report.tradeoff.facts import Facts
from exmem.report.tradeoff.table import write_tables
from exmem.report.tradeoff.work import Job, Outcome, jobs_of

__all__ = ["Estimate", "Left", "Slice", "Tradeoff", "Watcher", "duration"]


@dataclasses.dataclass(frozen=True)
class Slice:
    """The number-th of so many parts of all jobs, from 1; each job is in one of them."""

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str) -> "Slice":
        """Read `2/8`; SchemaError says how one is written."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise SchemaError(f"slice: expected I/N with I from 1 to N, such as 2/8, got {text!r}")
        return cls(int(number), int(of))

    def jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """Return a stretch of the jobs of each kind: neighbours share most, and kinds take different times."""
        chosen = []
        for kind in dict.fromkeys(job.kind for job in jobs):
            ones = [job for job in jobs if job.kind == kind]
            chosen += ones[len(ones) * (self.number - 1) // self.of : len(ones) * self.number // self.of]
        return chosen


class Left(NamedTuple):
    """Seconds of one process that cells take, and how many cells of which nothing is known are not counted."""

    seconds: float
    unknown: int

    def text(self, workers: int) -> str:
        """Write it for people; empty where nothing is left, or nothing is known."""
        known = f"about {duration(self.seconds / workers)} left" if self.seconds else ""
        more = f"{self.unknown:,} cells of a kind that was not measured yet" if self.unknown and known else ""
        return f"{known}, and {more}" if more else known


def duration(seconds: float) -> str:
    """Write a time for people: seconds below two minutes, then minutes, from two hours on hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Estimate:
    """Seconds of cells to come, by those of cells that are done: of the same kind, data and recipe, or of the kind."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], list[float]] = {}

    def learn(self, cell: Cell, seconds: float) -> None:
        """Count a cell that is done."""
        for key in self._keys(cell):
            self._seconds.setdefault(key, []).append(seconds)

    def of(self, cells: Iterable[Cell]) -> Left:
        """Return how long cells take."""
        seconds, unknown = 0.0, 0
        for cell in cells:
            known = next((self._seconds[key] for key in self._keys(cell) if key in self._seconds), None)
            if known is None:
                unknown += 1
            else:
                seconds += sum(known) / len(known)
        return Left(seconds, unknown)

    @staticmethod
    def _keys(cell: Cell) -> list[tuple[str, ...]]:
        return [(cell.kind, cell.data, cell.recipe), (cell.kind, cell.data), (cell.kind,)]


class Watcher:
    """What is told of a trade-off that runs; this one says nothing."""

    def begins(self, cells: Sequence[Cell]) -> None:
        """Hear which cells are to be run."""

    def told(self, title: str, text: str) -> None:
        """Hear what a job does."""

    def ends(self, title: str) -> None:
        """Hear that a job has ended."""

    def finished(self, cell: Cell, outcome: Outcome, left: Left) -> None:
        """Hear what became of a cell, and how long those take that are left."""


class Tradeoff:
    """A configuration and the folder of its results, which other configurations and processes may share.

    SchemaError if an option is wrong, DataError if data cannot be read.
    """

    def __init__(self, design: Design, out: Path, *, tell: Callable[[str], None] = lambda _: None) -> None:
        self.design, self.out = design, out
        self.known = Cells(out)
        for name, other in design.alike.items() if PROBE in design.kinds else ():
            tell(f"a probe cannot tell method {name!r} from {other!r}: it is measured once, as {other!r}")
        self.cells = cells_of(design, Facts(out / "facts", tell))
        self.estimate = Estimate()
        for cell in self._distinct(self.cells):
            result = self.known.result(cell)
            if result is not None:
                self.estimate.learn(cell, result["wall_seconds"])
            elif self.known.is_damaged(cell):
                tell(f"{self.known.place(cell) / 'result.json'} is damaged; its cell counts as left")

    @staticmethod
    def _distinct(cells: Sequence[Cell]) -> list[Cell]:
        first: dict[str, Cell] = {}
        for cell in cells:
            first.setdefault(cell.key, cell)
        return list(first.values())

    def counts(self, part: Slice = Slice()) -> "Counter[State]":
        """Return how many cells of a part are done, failed and left."""
        return Counter(self.known.state(cell) for job in part.jobs(jobs_of(self.cells)) for cell in job.cells)

    def left(self, part: Slice = Slice(), *, retry: bool = False) -> list[Job]:
        """Return the jobs of a part with those of their cells that are to be run; `retry` adds those that failed."""
        wanted = {"left", "failed"} if retry else {"left"}
        jobs = []
        for job in part.jobs(jobs_of(self.cells)):
            cells = tuple(cell for cell in job.cells if self.known.state(cell) in wanted)
            if cells:
                jobs.append(dataclasses.replace(job, cells=cells))
        return jobs

    def run(
        self,
        executor: Executor,
        part: Slice = Slice(),
        *,
        retry: bool = False,
        watcher: Watcher | None = None,
    ) -> pd.DataFrame:
        """Run what is left of a part, and write the tables of all that was measured, also when interrupted."""
        watcher = watcher or Watcher()
        jobs = self.left(part, retry=retry)
        waiting = {cell.key: cell for job in jobs for cell in job.cells}
        watcher.begins(list(waiting.values()))
        try:
            for cell in [cell for cell in waiting.values() if cell.refusal]:
                self._ended(cell, Outcome(cell.key, "failed", cell.refusal), waiting, watcher)
            possible = [job for job in jobs if not job.cells[0].refusal]
            for cell in waiting.values():
                self.known.forget_failure(cell)
            for job, outcomes in executor.run(possible, watcher.told):
                watcher.ends(job.title)
                by_key = {cell.key: cell for cell in job.cells}
                for outcome in outcomes:
                    self._ended(by_key[outcome.key], outcome, waiting, watcher)
        finally:
            table = write_tables(self.cells, self.known, self.out)
        return table

    def _ended(self, cell: Cell, outcome: Outcome, waiting: dict[str, Cell], watcher: Watcher) -> None:
        del waiting[cell.key]
        if outcome.state == "done":
            self.estimate.learn(cell, outcome.seconds)
        elif outcome.state == "failed" and self.known.state(cell) == "left":  # nobody could write it
            self.known.fail(cell, outcome.reason)
        watcher.finished(cell, outcome, self.estimate.of(waiting.values()))
