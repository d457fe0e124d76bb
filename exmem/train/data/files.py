"""Files below a folder of images: which there are, and what is wrong with one that is named."""

import functools
import os
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from exmem.train.data.labels import plain_form

__all__ = ["ImageFiles"]

_SUFFIXES = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
_SUFFIXES |= {".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".qoi", ".psd"}


class ImageFiles:
    """Files below a folder, links in it followed, named by the parts of their paths; hidden ones do not count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = tuple(_walk(folder))

    @staticmethod
    def is_image(parts: tuple[str, ...]) -> bool:
        """Tell by its suffix whether a file is an image."""
        return PurePosixPath(parts[-1]).suffix.lower() in _SUFFIXES

    def count_images(self, *, but: Container[tuple[str, ...]]) -> int:
        """Count images that are not among some."""
        return sum(self.is_image(parts) and parts not in but for parts in self.names)

    def path(self, parts: tuple[str, ...]) -> str:
        """Return where a file lies, for messages."""
        return "/".join((str(self.folder), *parts))

    def parts(self, cell: Any) -> tuple[str, ...] | None:
        """Return the file that a cell of a table names, None where it names none below the folder."""
        if not isinstance(cell, str) or not cell.strip() or "\0" in cell:
            return None
        if "\\" in cell and cell not in self._lookup:  # written on Windows
            cell = cell.replace("\\", "/")
        path = PurePosixPath(cell)
        return None if path.is_absolute() or ".." in path.parts or not path.parts else path.parts

    def wrong(self, parts: tuple[str, ...]) -> str | None:
        """Say what is wrong with a file, as far as can be told without reading it."""
        path = self.folder.joinpath(*parts)
        try:
            str(path).encode()
            if path.is_dir():
                return "expected an image, got a folder; name an image in it or drop its row"
            size = path.stat().st_size
        except UnicodeEncodeError:
            return "expected a name in UTF-8; rename the file"
        except FileNotFoundError:
            if path.is_symlink():
                return f"a link to {str(path.readlink())!a}, which is not there; put that back or drop the row"
            twin = self._lookup.get(plain_form("/".join(parts)))
            hint = f" (there is {twin!a}, written otherwise)" if twin else ""
            return f"no such image{hint}; add it or drop its row"
        except OSError as error:
            return f"cannot be read ({error.strerror}); correct that or drop its row"
        return None if size else "expected an image, got an empty file; replace it or drop its row"

    @functools.cached_property
    def _lookup(self) -> dict[str, str]:
        """Names as they are by names without case and form of accents, and by themselves."""
        names = ["/".join(parts) for parts in self.names]
        return {plain_form(name): name for name in names} | {name: name for name in names}


def _walk(folder: Path) -> Iterator[tuple[str, ...]]:
    seen = set()
    for above, folders, files in os.walk(folder, followlinks=True):
        status = Path(above).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        parts = Path(above).relative_to(folder).parts
        yield from ((*parts, name) for name in sorted(files) if not name.startswith("."))
