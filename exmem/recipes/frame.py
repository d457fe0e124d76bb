"""What a backbone sees of an image, or has made of it where replay starts: what every stored form is restored to."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from exmem.errors import SchemaError
from exmem.tokens.checks import shown, whole_number

__all__ = ["Frame"]

_MOST = 2**14  # rows, columns, pixels of a patch
_MOST_WIDTH = 2**20  # of a hidden token or a feature
_MOST_PIXELS = 2**24  # of an image: 4096 x 4096, 50 MB, so that a memory from strangers asks for no more


_DEFAULTS: dict[str, Any] = {"layer": None, "prefix": 0, "width": 0, "features": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """A grid of patches, and the sizes of what a backbone makes of them.

    Parameters
    ----------
    grid : tuple of int
        Rows and columns of patches.
    patch : int
        Side of a patch in pixels.
    layer : int, optional
        Blocks that hidden tokens went through, of a recipe that stores them.
    prefix : int
        Prefix tokens beside them.
    width : int
        Width of a hidden token.
    features : int
        Length of a feature, of a recipe that stores features.
    """

    grid: tuple[int, int]
    patch: int
    layer: int | None = None
    prefix: int = 0
    width: int = 0
    features: int = 0

    @property
    def length(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.grid[0] * self.patch, self.grid[1] * self.patch

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        more = {name: getattr(self, name) for name in _DEFAULTS if getattr(self, name) != _DEFAULTS[name]}
        return {"grid": list(self.grid), "patch": self.patch, **more}

    @classmethod
    def from_json(cls, document: Any) -> "Frame":
        """Read what `to_json` returned.

        Parameters
        ----------
        document : mapping
            Its `grid` and `patch`, and the sizes that are not 0.

        Returns
        -------
        Frame
            The frame.

        Raises
        ------
        SchemaError
            If it is none, or larger than any image.
        """
        if not isinstance(document, Mapping) or not {"grid", "patch"} <= set(document) <= {"grid", "patch", *_DEFAULTS}:
            raise SchemaError(f"expected a frame with 'grid' and 'patch', got {shown(document)}")
        grid = document["grid"]
        if not isinstance(grid, list | tuple) or len(grid) != 2:
            raise SchemaError(f"the grid of a frame must be [rows, columns], got {shown(grid)}")
        rows, columns = (whole_number(side, "each side of the grid", least=1, most=_MOST) for side in grid)
        more = {name: whole_number(document[name], name, most=_MOST_WIDTH) for name in _DEFAULTS if name in document}
        patch = whole_number(document["patch"], "patch", least=1, most=_MOST)
        frame = cls(grid=(rows, columns), patch=patch, **more)
        if math.prod(frame.size) > _MOST_PIXELS:
            raise SchemaError(f"a frame has at most {_MOST_PIXELS:,} pixels, got {frame.size[0]} x {frame.size[1]}")
        return frame
