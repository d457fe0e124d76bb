"""The data of a run, with a bar while images are decoded to find broken ones."""

from pathlib import Path
from typing import TYPE_CHECKING

from exmem.cli.output import make_console, make_progress

if TYPE_CHECKING:
    from exmem.train.config import TrainConfig
    from exmem.train.data import ImageText

__all__ = ["load_shown"]


def load_shown(config: "TrainConfig", place: Path) -> "tuple[ImageText, ImageText]":
    """Load what a run learns from and is tested with."""
    from exmem.train.parts import load_run_data

    with make_progress(make_console(stderr=True)) as bar:
        task = bar.add_task("Looking for broken images", total=None, visible=config.data.skip_bad)
        return load_run_data(config, place, lambda done, total: bar.update(task, completed=done, total=total))
