"""Parts of one's own for tests: a scorer that dies, one that raises, one that is slow and says that it began."""

import os
import time
from pathlib import Path

from exmem.masking.scorers import SCORERS


class Deadly:
    """Ends its process until it has done so `times` times; it counts in a file."""

    def __init__(self, *, file: str, times: int = 1) -> None:
        self._file, self._times = Path(file), times

    def __call__(self, model, batch, *, hidden=None):
        deaths = len(self._file.read_text()) if self._file.exists() else 0
        if deaths < self._times:
            self._file.write_text("x" * (deaths + 1))
            os._exit(9)
        return SCORERS.make("centre")(model, batch, hidden=hidden)


class Slow:
    """Writes a file, and waits until there is another."""

    def __init__(self, *, begun: str, goes_on: str) -> None:
        self._begun, self._goes_on = Path(begun), Path(goes_on)

    def __call__(self, model, batch, *, hidden=None):
        self._begun.write_text(str(os.getpid()))
        while not self._goes_on.exists():
            time.sleep(0.01)
        return SCORERS.make("centre")(model, batch, hidden=hidden)


def broken(model, batch, *, hidden=None):
    """Raise what no part of exmem would."""
    raise KeyError("colour")
