"""What is recognised without being told: a name on the hub, what `datasets` saved, tables, an imagefolder."""

from exmem.errors import DataError
from exmem.train.data.layouts.imagefolder import read_imagefolder
from exmem.train.data.layouts.places import TESTS, Place
from exmem.train.data.layouts.saved import is_saved, read_hub, read_saved
from exmem.train.data.layouts.tabular import read_tables, split_tables
from exmem.train.data.reading import Columns, Reading

__all__ = ["read_recognised"]


def read_recognised(place: Place, columns: Columns) -> Reading:
    """Read data in the first form that fits; DataError where two would."""
    if place.is_hub:
        return read_hub(place, columns)
    if place.path.is_file():
        return read_tables(place, columns)
    root = place.folder("a folder with train/ and test/")
    if is_saved(root):
        return read_saved(place, columns)
    tables = split_tables(root)
    if "train" not in tables or not any(name in tables for name in TESTS):
        return read_imagefolder(place, columns)
    if metadata := sorted((root / "train").glob("metadata.*")):
        raise DataError(
            f"{root}: there are {tables['train'][0].name} and train/{metadata[0].name}; keep one of them, or say which "
            "is meant with data.layout tables or imagefolder"
        )
    return read_tables(place, columns)
