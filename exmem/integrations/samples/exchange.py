"""A folder exchanged for another one, whole: a kill in the middle leaves the one or the other."""

import shutil
from pathlib import Path

__all__ = ["beside_of", "files_of", "finish_swap", "swap"]


def beside_of(root: Path) -> Path:
    """Return where what takes the place of a folder is made: as `new` in this one, beside it."""
    return root.with_name(f".{root.name}.restoring")


def swap(root: Path) -> None:
    """Put what was made beside a folder in its place."""
    beside = beside_of(root)
    if root.exists():
        root.rename(beside / "old")
    (beside / "new").rename(root)
    shutil.rmtree(beside, ignore_errors=True)


def finish_swap(root: Path) -> None:
    """Finish, or undo, what a kill left: where the folder is away, what takes its place was whole before it went."""
    beside = beside_of(root)
    if not beside.exists():
        return
    if not root.exists() and (beside / "old").exists():
        (beside / ("new" if (beside / "new").exists() else "old")).rename(root)
    shutil.rmtree(beside, ignore_errors=True)


def files_of(root: Path) -> list[Path]:
    """Return the files of a memory but its lock."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return [path for path in files if path.relative_to(root).parts[0] != "lock"]
