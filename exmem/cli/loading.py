"""The data of a run, with a bar while images are decoded to find broken ones."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

if TYPE_CHECKING:
    from exmem.train.config import TrainConfig
    from exmem.train.data import ImageText

__all__ = ["load_shown"]


def load_shown(config: "TrainConfig", place: Path) -> "tuple[ImageText, ImageText]":
    """Load what a run learns from and is tested with."""
    from exmem.train.parts import load_run_data

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Looking for broken images", total=None, visible=config.data.skip_bad)
        return load_run_data(config, place, lambda done, total: bar.update(task, completed=done, total=total))
