"""Progress of a trade-off: a bar over all cells with the time that is left, and what each worker does."""

from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from typing_extensions import override

from exmem.report.tradeoff.cells import Cell
from exmem.report.tradeoff.run import Left, Watcher
from exmem.report.tradeoff.work import Outcome

__all__ = ["ShownProgress"]


class ShownProgress(Watcher):
    """Bars where the console is a terminal, and a line for each cell that ends, with an estimate of what is left.

    `workers` is how many cells run at once, by which the estimate is divided.
    """

    def __init__(self, console: Console, *, workers: int, done: int) -> None:
        self.console, self._workers, self._done = console, workers, done
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True)
        self._all = self._bars.add_task("cells", total=None, left="")
        self._jobs: dict[str, TaskID] = {}
        self._total = 0

    def __enter__(self) -> Self:
        if self.console.is_interactive:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_interactive:
            self._bars.stop()

    @override
    def begins(self, cells: Sequence[Cell]) -> None:
        self._total = self._done + len(cells)
        self._bars.update(self._all, total=self._total, completed=self._done)

    @override
    def told(self, title: str, text: str) -> None:
        if title not in self._jobs:
            self._jobs[title] = self._bars.add_task("", total=None, left="")
        self._bars.update(self._jobs[title], description=f"  {title}: {text}"[: self.console.width - 30])
        if "died" in text:
            self._line(f"{title}: {text}")

    @override
    def ends(self, title: str) -> None:
        if title in self._jobs:
            self._bars.remove_task(self._jobs.pop(title))

    @override
    def finished(self, cell: Cell, outcome: Outcome, left: Left) -> None:
        self._done += 1
        estimate = left.text(self._workers)
        self._bars.update(self._all, completed=self._done, left=estimate)
        name = f"{cell.kind}: {cell.data}, {cell.recipe}, {cell.method}, {cell.budget}, seed {cell.seed}"
        told = {
            "done": f"{outcome.seconds:.1f} s",
            "failed": f"failed: {outcome.reason}",
            "busy": "another process runs it; left to it",
        }[outcome.state]
        self._line(f"[{self._done}/{self._total}] {name}: {told}" + (f"; {estimate}" if estimate else ""))

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)
