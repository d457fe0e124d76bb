"""Progress of a run: how far the learning is, and what is being done."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["RunProgress"]


class RunProgress:
    """A bar for the run, which counts the examples learnt from, and one for its stage; a line after each phase.

    `total` is how many examples all phases learn from, as often as they do, `done` those of phases finished before.
    """

    def __init__(self, console: Console, *, name: str, total: int, done: int = 0) -> None:
        self.console, self._total, self._before, self._began = console, total, done, time.monotonic()
        self._done = done
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True)
        self._run = self._bars.add_task(f"{name}: learning", total=total, completed=done)
        self._stage = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        if self.console.is_interactive:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_interactive:
            self._bars.stop()

    def stage(self, text: str, total: int) -> Callable[[int], None]:
        """Begin a stage of so many examples; call what is returned with those that are done."""
        self._bars.reset(self._stage, description=f"  {text}", total=total, visible=True)
        return lambda count: self._bars.advance(self._stage, count)

    def learnt(self, count: int) -> None:
        """Count examples that were learnt from."""
        self._done += count
        self._bars.advance(self._run, count)

    def line(self, text: str) -> None:
        """Print a line that stays, with the time that is left if phases go on as they went."""
        counted = self._done - self._before
        if self._done < self._total and counted:
            seconds = (time.monotonic() - self._began) * (self._total - self._done) / counted
            text = f"{text}; about {timedelta(seconds=round(seconds))} left"
        self.console.print(text, highlight=False, soft_wrap=True)
