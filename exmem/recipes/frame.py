"""The frame of images as a backbone sees them: what every stored form is restored to."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from exmem.errors import SchemaError
from exmem.tokens.checks import shown, whole_number

__all__ = ["Frame"]

_MOST = 2**14  # rows, columns, pixels of a patch
_MOST_PIXELS = 2**24  # of an image: 4096 x 4096, 50 MB, so that a memory from strangers asks for no more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """A grid of patches.

    Parameters
    ----------
    grid : tuple of int
        Rows and columns of patches.
    patch : int
        Side of a patch in pixels.
    """

    grid: tuple[int, int]
    patch: int

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
        return {"grid": list(self.grid), "patch": self.patch}

    @classmethod
    def from_json(cls, document: Any) -> "Frame":
        """Read what `to_json` returned.

        Parameters
        ----------
        document : mapping
            Its `grid` and `patch`.

        Returns
        -------
        Frame
            The frame.

        Raises
        ------
        SchemaError
            If it is none, or larger than any image.
        """
        if not isinstance(document, Mapping) or set(document) != {"grid", "patch"}:
            raise SchemaError(f"expected a frame with 'grid' and 'patch', got {shown(document)}")
        grid = document["grid"]
        if not isinstance(grid, list | tuple) or len(grid) != 2:
            raise SchemaError(f"the grid of a frame must be [rows, columns], got {shown(grid)}")
        rows, columns = (whole_number(side, "each side of the grid", least=1, most=_MOST) for side in grid)
        frame = cls(grid=(rows, columns), patch=whole_number(document["patch"], "patch", least=1, most=_MOST))
        if math.prod(frame.size) > _MOST_PIXELS:
            raise SchemaError(f"a frame has at most {_MOST_PIXELS:,} pixels, got {frame.size[0]} x {frame.size[1]}")
        return frame
