"""The cache on disk of what all runs share: tensors by name, within a bound."""

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from exmem.backbones.packaged import cache_dir
from exmem.errors import DataError, SchemaError
from exmem.store import parse_bytes
from exmem.train.ranks import ALONE, Ranks

__all__ = ["cached", "keep", "text_key"]

_ABANDONED_S = 86_400  # since a file was last written to that its writer has not put in place


def text_key(text: str) -> str:
    """Name a text in a few letters that a file name may hold."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def cached(name: str, ranks: Ranks = ALONE) -> dict[str, Tensor] | None:
    """Return the tensors of a name in the cache that all runs share; None where a process finds none."""
    tensors = _cached(name)
    return tensors if ranks.every(tensors is not None) else None


def _cached(name: str) -> dict[str, Tensor] | None:
    _most_bytes()  # a setting that cannot be read is told before anything is computed
    file = _file(name)
    try:
        os.utime(file)
        return load_file(file)
    except (FileNotFoundError, SafetensorError):  # not there, removed meanwhile by another process, or cut off
        return None


def keep(name: str, tensors: Mapping[str, Tensor], ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """Put tensors, the same of all processes, into the cache that all runs share, and return them.

    The cache holds at most `EXMEM_HIDDEN_BYTES` (16GB when unset); what was not used for longest goes first, and what
    is larger by itself is not kept. Several processes share what it holds.
    """
    tensors = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
    if ranks.writes_here:
        _keep(name, tensors)
    if ranks.count > 1:
        ranks.wait()
        tensors = _cached(name) or tensors
    return tensors


def _keep(name: str, tensors: dict[str, Tensor]) -> None:
    most, file = _most_bytes(), _file(name)
    if sum(tensor.nbytes for tensor in tensors.values()) > most:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary)
        if (size := temporary.stat().st_size) <= most:
            _make_room(file, most - size)
            temporary.replace(file)
    except SafetensorError as error:  # what the disk says is a text in it
        remedy = "make room there, or keep none with EXMEM_HIDDEN_BYTES=0"
        raise DataError(f"{file}: hidden tokens cannot be written ({error}); {remedy}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _file(name: str) -> Path:
    return cache_dir() / "hidden" / f"{name}.safetensors"


def _most_bytes() -> int:
    try:
        return parse_bytes(os.environ.get("EXMEM_HIDDEN_BYTES", "16GB"))
    except SchemaError as error:
        raise SchemaError(f"EXMEM_HIDDEN_BYTES: {error}") from error


def _make_room(coming: Path, most: int) -> None:
    """Remove what was not used for longest until at most so many bytes are left beside the coming file."""
    others: list[tuple[float, int, Path]] = []
    for other in coming.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process makes room, too
            used, size = other.stat().st_mtime, other.stat().st_size
            if other.suffix != ".tmp" and other != coming:
                others.append((used, size, other))
            elif other.suffix == ".tmp" and time.time() - used > _ABANDONED_S:
                other.unlink()
    held = sum(size for _, size, _ in others)
    for _, size, other in sorted(others):
        if held > most:
            held -= size
            other.unlink(missing_ok=True)
