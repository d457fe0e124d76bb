"""Ready configurations: published protocols with the options of this trainer, found by name."""

import os
from pathlib import Path

from exmem.errors import SchemaError

__all__ = ["configuration_file", "ready_configurations"]

_FOLDER = Path(__file__).parent / "configurations"


def ready_configurations() -> dict[str, Path]:
    """Return the files of the ready configurations by name, in order."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def configuration_file(name: str | os.PathLike[str]) -> Path:
    """Return the file that a name stands for: a file as it is, else a ready configuration; SchemaError if none."""
    path = Path(name)
    if path.suffix or path.exists():
        return path
    ready = ready_configurations()
    if str(name) not in ready:
        raise SchemaError(f"--config: unknown configuration {str(name)!r}; choose a file, or one of {[*ready]}")
    return ready[str(name)]
