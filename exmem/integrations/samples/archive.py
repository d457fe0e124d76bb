"""The files of a folder in one piece: a tenth of what tar takes for many small ones, in bytes and in time."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from exmem.errors import DataError

__all__ = ["read_files", "write_files"]

_MAGIC = b"exmem files 1\n"
_MOST_INDEX = 2**28  # bytes of names and sizes, uncompressed: those of millions of files


def write_files(file: IO[bytes], root: Path, paths: Sequence[Path]) -> None:
    """Write files below a folder one after the other, behind their names and sizes; none may change meanwhile."""
    index = [[path.relative_to(root).as_posix(), path.stat().st_size] for path in paths]
    packed = zlib.compress(json.dumps(index, separators=(",", ":")).encode(), 1)
    file.write(_MAGIC + len(packed).to_bytes(8, "little") + packed)
    for path in paths:
        file.write(path.read_bytes())


def read_files(file: IO[bytes], folder: Path) -> None:
    """Make the files that `write_files` wrote, of whatever origin, in a folder; DataError if it wrote none of this."""
    if _taken(file, len(_MAGIC)) != _MAGIC:
        raise DataError("expected files in one piece, got something else")
    length = int.from_bytes(_taken(file, 8), "little")
    if length > _MOST_INDEX:
        raise DataError(f"expected names and sizes of files, got {length:,} bytes of them")
    packed = _taken(file, length)
    try:
        reader = zlib.decompressobj()
        index = json.loads(reader.decompress(packed, _MOST_INDEX))
        files = [(PurePosixPath(name), size) for name, size in index]
        if len(dict(files)) < len(index) or reader.unconsumed_tail:
            raise ValueError("a name comes twice, or they are too long")
        for name, size in files:
            if name.is_absolute() or not name.parts or ".." in name.parts or type(size) is not int or size < 0:
                raise ValueError(f"{str(name)[:80]!r} of {size!r} bytes is no file below a folder")
    except (zlib.error, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"expected names and sizes of files, got something else ({error})") from error
    try:
        _make(file, folder, files)
    except (OSError, ValueError, OverflowError) as error:  # names that are none here, or one that is a folder, too
        raise DataError(f"files of these names and sizes cannot be made: {error}") from error
    if file.read(1):
        raise DataError("expected files in one piece, got more behind them")


def _make(file: IO[bytes], folder: Path, files: Sequence[tuple[PurePosixPath, int]]) -> None:
    made: set[PurePosixPath] = set()
    for name, size in files:
        if name.parent not in made:
            (folder / name.parent).mkdir(parents=True, exist_ok=True)
            made.add(name.parent)
        with (folder / name).open("xb") as target:
            target.write(_taken(file, size))


def _taken(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise DataError(f"expected {count:,} more bytes, got {len(data):,}: the end is missing")
    return data
