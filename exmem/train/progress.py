"""Progress of a run, with an estimate of the time that is left."""

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
    """

    def __init__(self, console: Console, *, name: str, total: float) -> None:
        self.console, self._name = console, name
        columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bar = Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)
        self._task = self._bar.add_task(name, total=total)

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
        self._bar.advance(self._task, units)

    def line(self, text: str) -> None:
        """Print a line that stays.

        Parameters
        ----------
        text : str
            The line.
        """
        self.console.print(text, highlight=False)
