"""Tables that Hugging Face `datasets` writes: Parquet files, and data sets on disk or on the hub."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exmem.errors import DataError
from exmem.train.data.labels import Number
from exmem.train.data.reading import Columns
from exmem.train.data.tables import Inside, Table

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["images_held", "read_dataset", "read_parquet"]

_CHUNK = 1000  # rows that are looked at at once


def read_parquet(paths: Sequence[Path], columns: Columns) -> Table:
    """Read Parquet files, parts of one table; images that lie in them are held in RAM."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    tables, names = [], list[str]()
    for path in paths:
        try:
            names = pq.read_schema(path).names
            asked = [columns.image_in(names), columns.text, columns.label, columns.split]
            table = pq.read_table(path, columns=[name for name in dict.fromkeys(asked) if name in names] or names[:1])
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: expected a Parquet file, got {reason}; write it again") from error
        for at, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):  # as pandas writes categories
                table = table.set_column(at, field.name, table.column(at).cast(field.type.value_type))
        tables.append(table)
    if any(table.schema.names != tables[0].schema.names for table in tables):
        raise DataError(f"{paths[0]}: expected the same columns in all parts of a table; write them again")
    try:
        whole = Dataset(InMemoryTable(pa.concat_tables(tables)))
    except (NotImplementedError, ValueError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{paths[0]}: its columns cannot be read ({' '.join(str(error).split())})") from error
    return read_dataset(whole, paths[0], columns, names=names)


def read_dataset(dataset: "Dataset", path: Path, columns: Columns, *, names: Sequence[str] = ()) -> Table:
    """Read the columns that are asked for of a `datasets.Dataset`; its images are not read. `names` are all columns."""
    dataset, names = dataset.with_format(None), tuple(names or dataset.column_names)
    image = columns.image_in(dataset.column_names)
    if image is None and columns.needs_image:
        raise DataError(
            f"{path}: expected the column {columns.images[0]!r}, got {list(names)[:8]}; rename yours, or name it with "
            "image_column (--data.image-column)"
        )
    wanted = [name for name in (columns.text, columns.label, columns.split) if name in dataset.column_names]
    values = {name: _values(dataset, name) for name in dict.fromkeys(wanted) if name is not None}
    images = None if image is None else _images(dataset, image)
    if image is not None and images is not None:
        values[image] = _insides(images)
    elif image is not None:
        values[image] = _values(dataset, image)
    rows = [(row, {name: held[row] for name, held in values.items()}) for row in range(len(dataset))]
    return Table(path, names, rows, image, images, row_word="row")


def images_held(dataset: "Dataset") -> list[tuple[int | None, str | None]]:
    """Return bytes and path of each image of the column `image`: how many bytes lie in the table, and its file."""
    import pyarrow.compute as pc

    held: list[tuple[int | None, str | None]] = []
    arrow = dataset.select_columns(["image"]).with_format("arrow")
    for start in range(0, len(dataset), _CHUNK):
        column = arrow[start : start + _CHUNK]["image"].combine_chunks()
        sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
        held.extend(zip(sizes, pc.struct_field(column, "path").to_pylist(), strict=True))
    return held


def _values(dataset: "Dataset", name: str) -> list[Any]:
    """Return a column as tables of text have it: numbers as they are written, names of classes."""
    kind = dataset.features[name]
    names = getattr(kind, "names", None)
    if names is None:
        return [_cell(value) for value in dataset[name][:]]
    return [names[value] if value is not None and 0 <= value < len(names) else None for value in dataset[name][:]]


def _cell(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return None if isinstance(value, float) and math.isnan(value) else Number(value)


def _images(dataset: "Dataset", name: str) -> "Dataset | None":
    """Return the column of images alone, as `image`; None where it has the names of files."""
    import datasets

    kind = dataset.features[name]
    is_struct = isinstance(kind, dict) and set(kind) == {"bytes", "path"}
    is_bytes = isinstance(kind, datasets.Value) and kind.dtype in {"binary", "large_binary"}
    if not (isinstance(kind, datasets.Image) or is_struct or is_bytes):
        return None
    images = dataset.select_columns([name])
    if name != "image":
        images = images.rename_column(name, "image")
    return images.cast_column("image", datasets.Image(decode=False))


def _insides(images: "Dataset") -> list[Inside]:
    """Say of each image whether it is there; those that are in files elsewhere are looked for."""
    return [Inside(row, _wrong(size, path)) for row, (size, path) in enumerate(images_held(images))]


def _wrong(size: int | None, path: str | None) -> str | None:
    if size is not None:
        return None if size else "expected an image, got an empty one; replace it or drop its row"
    if path is None:
        return "expected an image, got nothing; add it or drop its row"
    return None if Path(path).is_file() else f"no such image as {path!r}; add it or drop its row"
