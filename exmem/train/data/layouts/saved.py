"""Data sets of Hugging Face `datasets`: a folder that `save_to_disk` wrote, or `hf:OWNER/NAME[:CONFIG]` on the hub.

Their splits are train and test (or validation); one set without splits needs a column that names them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exmem.errors import DataError
from exmem.train.data.arrow import read_dataset
from exmem.train.data.files import ImageFiles
from exmem.train.data.layouts.places import HUB, TESTS, Place
from exmem.train.data.layouts.tabular import splits_of, whole_of
from exmem.train.data.reading import Columns, Reading, Split, joined
from exmem.train.data.rows import read_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["is_saved", "read_hub", "read_saved", "read_whole_set"]

_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # as the hub allows them


def is_saved(folder: Path) -> bool:
    """Tell whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved(place: Place, columns: Columns) -> Reading:
    """Read a folder that `save_to_disk` wrote; images in it are read when they are asked for."""
    return _reading(_from_disk(place), str(place), place.path, columns)


def read_hub(place: Place, columns: Columns) -> Reading:
    """Load a data set of the hub, through the cache of `datasets`."""
    return _reading(_from_hub(place), str(place), place.path, columns)


def read_whole_set(place: Place, columns: Columns) -> Split:
    """Read a set of one split, saved or of the hub; DataError where it is divided."""
    held = _from_hub(place) if place.is_hub else _from_disk(place)
    if isinstance(held, Mapping):
        if len(held) != 1:
            raise DataError(f"{place}: it is divided already, got {[*map(str, held)]}; leave out the layout undivided")
        (held,) = held.values()
    table = read_dataset(held, place.path, columns)
    return whole_of(table, columns, ImageFiles(place.path), place=str(place))


def _from_disk(place: Place) -> "Mapping[Any, Dataset] | Dataset":
    import datasets

    root = place.folder("a folder that save_to_disk wrote")
    if not is_saved(root):
        raise DataError(f"{root}: expected a dataset_dict.json or state.json of save_to_disk, got none; save it again")
    if "::" in str(root):
        raise DataError(f"{root}: expected a path without '::', which is an address to datasets; rename the folder")
    try:
        held: Mapping[Any, Dataset] | Dataset = datasets.load_from_disk(str(root))
    except Exception as error:  # whatever damaged files lead its readers to
        raise DataError(f"{root}: cannot be read ({_first_line(error)}); save it again with save_to_disk") from error
    return held


def _from_hub(place: Place) -> "Mapping[Any, Dataset] | Dataset":
    import datasets

    name, _, config = str(place).removeprefix(HUB).partition(":")
    if not _NAME.fullmatch(name) or Path(name).exists():
        what = "a place on this machine" if Path(name).exists() else "no such name"
        raise DataError(
            f"{place}: expected hf:OWNER/NAME or hf:OWNER/NAME:CONFIG, got {what}; give a folder without hf:"
        )
    try:
        held: Mapping[Any, Dataset] | Dataset = datasets.load_dataset(name, config or None)
    except Exception as error:  # many: no network, no such name, a configuration that lacks, a script
        raise DataError(
            f"{place}: cannot be loaded from the hub ({_first_line(error)}); check the name and the network (`hf auth "
            "login` where it is not public), or download it and give its folder"
        ) from error
    return held


def _reading(held: "Mapping[Any, Dataset] | Dataset", name: str, root: Path, columns: Columns) -> Reading:
    files = ImageFiles(root)
    if not isinstance(held, Mapping):
        return splits_of(read_dataset(held, root, columns), columns, files, root=name)
    test = next((split for split in TESTS if split in held), None)
    if "train" not in held or test is None:
        raise DataError(
            f"{name}: expected the splits train and test (or validation), got {[*map(str, held)]}; divide it with "
            "train_test_split and save it with save_to_disk"
        )
    splits = []
    for split in ("train", test):
        table = read_dataset(held[split], root / split, columns)
        splits.append(read_rows(table, columns, files, place=f"{name} ({split})", prefix=(split,)))
    warned = [] if test == "test" else [f"{name}: there is no split test, {test} is taken for it"]
    return joined(name, *splits, warned=warned)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return " ".join((lines[0] if lines else type(error).__name__).split())[:200]
