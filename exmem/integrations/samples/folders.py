"""Folders of memories: exchanged whole, so that a kill in the middle leaves the one or the other; of one process."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from exmem.errors import StoreExistsError

__all__ = ["beside_of", "files_of", "finish_swap", "put", "remove", "swap", "temporary_folder"]


def beside_of(root: Path) -> Path:
    """Return where what takes the place of a folder is made: as `new` in this one, beside it."""
    return root.with_name(f".{root.name}.restoring")


def put(root: Path) -> None:
    """Put what was made beside a folder that is missing or empty in its place; StoreExistsError if it is neither."""
    beside = beside_of(root)
    try:
        if root.exists():
            root.rmdir()
        (beside / "new").rename(root)
    except OSError as error:
        raise StoreExistsError(f"{root}: another process made something there ({error}); open that") from error
    shutil.rmtree(beside, ignore_errors=True)


def swap(root: Path) -> None:
    """Put what was made beside a folder in its place."""
    beside = beside_of(root)
    if root.exists():
        root.rename(beside / "old")
    (beside / "new").rename(root)
    shutil.rmtree(beside, ignore_errors=True)


def remove(root: Path) -> None:
    """Remove a folder: after a kill in the middle it is whole, or away."""
    if root.exists():
        finish_swap(root)  # of an earlier one, what could not be removed
        beside = beside_of(root)
        beside.mkdir(parents=True)
        root.rename(beside / "gone")
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


def temporary_folder(owner: object) -> Path:
    """Return where a memory may be made, in a folder that goes with its owner, or with this process."""
    folder = tempfile.mkdtemp(prefix="exmem-")
    weakref.finalize(owner, _remove, folder, os.getpid())
    return Path(folder) / "memory"


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child has the finaliser, too
        shutil.rmtree(folder, ignore_errors=True)
