"""Debian packages that carry pictures: fetched by apt, checked, and unpacked without being installed."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from exmem.backbones.packaged.fetching import Progress, cache_dir
from exmem.errors import DataError

__all__ = ["Package", "fetch_package", "unpack"]


class Package(NamedTuple):
    """A binary package for all machines: its name, exact version with the epoch, and hash."""

    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """As the archive names it: without the epoch."""
        return f"{self.name}_{self.version.split(':')[-1]}_all.deb"


def fetch_package(package: Package, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the package's file, which `apt-get download` fetches when it is not in the cache.

    Its hash is checked either way. DataError if it cannot be fetched, or has another hash.
    """
    kept = (cache or cache_dir()) / "packages" / package.file_name
    if not kept.exists():
        if progress is not None:
            progress(f"fetching {package.file_name}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            shutil.move(_download(package, Path(temporary), kept), kept)
    with kept.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise DataError(f"{kept}: expected SHA-256 {package.sha256}, got {digest}; delete it and try again")
    return kept


def unpack(path: Path, folder: Path) -> None:
    """Unpack the files of a package into a folder; Python's own tools are enough."""
    with tarfile.open(fileobj=io.BytesIO(_member(path.read_bytes(), b"data.tar.xz")), mode="r:xz") as archive:
        archive.extractall(folder, filter="data")


def _member(archive: bytes, wanted: bytes) -> bytes:
    """Return one member of an ar archive: a head of 60 bytes before each (name in 0-16, size in 48-58), padded to 2."""
    at = len(b"!<arch>\n")
    while at < len(archive):
        name, size = archive[at : at + 16].rstrip(b" /"), int(archive[at + 48 : at + 58])
        if name == wanted:
            return archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise DataError(f"expected a package with {wanted.decode()}, found none")


def _download(package: Package, folder: Path, kept: Path) -> Path:
    by_hand = f"or put {package.file_name} (Debian 12, SHA-256 {package.sha256}) at {kept}"
    if shutil.which("apt-get") is None:
        raise DataError(f"{package.name}: there is no apt-get here; run this on Debian 12, {by_hand}")
    command = ["apt-get", "--quiet", "download", f"{package.name}={package.version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    files = sorted(folder.glob("*.deb"))
    if done.returncode or not files:
        reason = (done.stderr.strip().splitlines() or ["apt-get gave no reason"])[-1]
        raise DataError(
            f"cannot fetch {package.name} {package.version} ({reason}); run `apt-get update` as root first, {by_hand}"
        )
    return files[0]
