"""How data lies: forms that are recognised, and data sets as they are distributed. One file each; a registry."""

import os
from typing import Protocol

from exmem.registry import Part, Registry
from exmem.train.data.layouts.places import Place
from exmem.train.data.reading import Columns, Reading

__all__ = ["LAYOUTS", "Layout", "read_data"]

_HERE = "exmem.train.data.layouts"


class Layout(Protocol):
    """A form of data; options come by keyword."""

    def __call__(self, place: Place, columns: Columns, /) -> Reading:
        """Read what is there, with all that is wrong in it; DataError only where there is nothing to read."""


LAYOUTS: Registry[Layout] = Registry(
    "layout",
    {
        "auto": f"{_HERE}.recognised:read_recognised",
        "cifar100": f"{_HERE}.cifar100:read_cifar100",
        "cub": f"{_HERE}.cub:read_cub",
        "food101": f"{_HERE}.food101:read_food101",
        "hub": f"{_HERE}.saved:read_hub",
        "imagefolder": f"{_HERE}.imagefolder:read_imagefolder",
        "imagenet_r": f"{_HERE}.imagenet_r:read_imagenet_r",
        "mm_imagenet_r": f"{_HERE}.mm_imagenet_r:read_mm_imagenet_r",
        "saved": f"{_HERE}.saved:read_saved",
        "tables": f"{_HERE}.tabular:read_tables",
        "undivided": f"{_HERE}.undivided:read_undivided",
    },
)


def read_data(place: str | os.PathLike[str], columns: Columns, layout: str | Part = "auto") -> Reading:
    """Read data in a layout, by name or with options; see `Layout`. SchemaError if there is no such layout."""
    part = Part.of(layout)
    return LAYOUTS.make(part.name, **part.kwargs)(Place(place), columns)
