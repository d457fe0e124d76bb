"""Files that are there whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["read_json", "read_mapping", "replaced", "write_json"]


def replaced(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside the path, and put it there when it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)  # mkstemp makes files for their owner alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Write plain values; NaN is written as null."""
    text = json.dumps(_without_nan(document), indent=1, allow_nan=False) + "\n"
    replaced(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Return what a file holds; None where there is none, or it is no JSON: it is made again then."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return None


def read_mapping(path: Path, *keys: str) -> dict[str, Any] | None:
    """Return the mapping that a file holds; None where there is none with these keys."""
    document = read_json(path)
    return document if isinstance(document, dict) and document.keys() >= set(keys) else None


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value
