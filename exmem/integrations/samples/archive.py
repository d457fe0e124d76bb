"""The files of a folder in one piece: a zip file without compression, which takes a tenth of what tar adds to each."""

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from exmem.errors import DataError

__all__ = ["read_files", "write_files"]


def write_files(file: IO[bytes], root: Path, paths: Sequence[Path]) -> None:
    """Write files below a folder, without their times: the same files are the same bytes; none may change meanwhile."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            archive.writestr(zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes())


def read_files(file: IO[bytes], folder: Path) -> None:
    """Make the files that `write_files` wrote, of whatever origin, in a folder; DataError if it wrote none of this."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):  # which might be a bomb
                raise ValueError("they are compressed")
            names = [PurePosixPath(entry.orig_filename) for entry in entries]
            if len(set(names)) < len(names) or any(name.is_absolute() or ".." in name.parts for name in names):
                raise ValueError("a name comes twice, or is none below a folder")
            archive.extractall(folder)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, OverflowError) as error:
        raise DataError(f"expected files in one piece, got something else: {error}") from error
