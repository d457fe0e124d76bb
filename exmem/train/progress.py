"""Progress of a run, with an estimate of the time that is left."""

import time
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["RunProgress"]


class RunProgress:
    """One bar for the whole run, whose unit is one picture through the whole backbone.

    Parameters
    ----------
    console : Console
        Where it is drawn; a console that is no terminal gets lines only.
    name : str
        What runs.
    total : float
        Units of the whole run.
    done : float
        Units that an earlier process did.
    """

    def __init__(self, console: Console, *, name: str, total: float, done: float = 0.0) -> None:
        self.console, self._name = console, name
        self._total, self._before, self._done, self._began = total, done, done, time.monotonic()
        columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bar = Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)
        self._task = self._bar.add_task(name, total=total)
        self._bar.update(self._task, completed=done)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def stage(self, text: str) -> None:
        """Say what is being done.

        Parameters
        ----------
        text : str
            A few words.
        """
        self._bar.update(self._task, description=f"{self._name}: {text}")

    def advance(self, units: float) -> None:
        """Count work that was done.

        Parameters
        ----------
        units : float
            Units.
        """
        self._done += units
        self._bar.advance(self._task, units)

    def reach(self, units: float) -> None:
        """Correct the count where a part was finished with less work than expected.

        Parameters
        ----------
        units : float
            Units of all parts that are finished.
        """
        self._done = units
        self._bar.update(self._task, completed=units)

    def line(self, text: str, *, last: bool) -> None:
        """Print a line that stays, with the time that is left.

        Parameters
        ----------
        text : str
            The line.
        last : bool
            Whether nothing is left.
        """
        rate = (self._done - self._before) / (time.monotonic() - self._began)
        left = timedelta(seconds=round((self._total - self._done) / rate)) if rate > 0 else "an unknown time"
        self.console.print(text if last else f"{text}; about {left} left", highlight=False, soft_wrap=True)
