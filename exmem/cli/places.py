"""Where a memory lies that is named by its folder or by that of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exmem.train.folder import RunFolder

__all__ = ["find_store"]


def find_store(store: Path) -> "tuple[Path, RunFolder | None]":
    """Return where a memory lies, and the run that it belongs to; a run may have none yet, or none at all."""
    path = store.expanduser().absolute()
    for folder in (path, path.parent) if path.name == "memory" else (path,):
        if (folder / "run.json").exists():  # else there is no run, and no torch is needed
            from exmem.train.folder import RunFolder

            run = RunFolder(folder)
            if run.is_run:
                return run.memory, run
    return path, None
