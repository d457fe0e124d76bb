"""A memory as a plain folder of images and metadata, and back."""

import contextlib
import itertools
import json
import math
import operator
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError, ExmemError
from exmem.memory.memory import ExemplarMemory
from exmem.memory.quota import Quota
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec

__all__ = ["export_folder", "import_folder", "is_image"]

_BATCH = 64
_INLINE = 64  # values that are written into the metadata
_VERSION = 1
_WRONG = (LookupError, TypeError, ValueError, OSError, RuntimeError, AttributeError, OverflowError)  # by a wrong line


def export_folder(memory: ExemplarMemory, folder: str | os.PathLike[str]) -> int:
    """Write all exemplars as files that any program reads.

    `memory.json` holds schema, budget, eviction, quota, attributes and class names, `metadata.jsonl` a line per
    exemplar: slot, label, priority, extra fields, and per modality the positions and either the values or the name of a
    file. Image patches become a PNG with the patches in their places (dropped ones are black), all else a `.npy` file.

    Parameters
    ----------
    memory : ExemplarMemory
        The memory.
    folder : path
        A folder that is missing or empty.

    Returns
    -------
    int
        Exemplars written.

    Raises
    ------
    DataError
        If the folder is not empty.
    """
    root = Path(folder)
    if root.exists() and any(root.iterdir()):
        raise DataError(f"{root} is not empty; choose another folder")
    (root / "files").mkdir(parents=True)
    head = {
        "exmem_export": _VERSION,
        "max_bytes": memory.max_bytes,
        "max_exemplars": memory.max_exemplars,
        "eviction": memory.eviction,
        "quota": memory.quota.to_json(),
        "attrs": dict(memory.attrs),
        "class_names": {str(label): name for label, name in memory.class_names.items()},
        "schema": memory.schema.to_json(),
    }
    (root / "memory.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    slots = memory.slots
    with (root / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for start in range(0, len(slots), _BATCH):
            chosen = slots[start : start + _BATCH]
            batch = memory.read(chosen)
            for row, slot in enumerate(chosen.tolist()):
                line = _line(root, memory.schema, slot, batch.exemplar(row))
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(slots)


def import_folder(
    folder: str | os.PathLike[str], path: str | os.PathLike[str], *, max_bytes: int | str | None = None
) -> ExemplarMemory:
    """Make a memory out of what `export_folder` wrote; lossy codecs encode once more.

    Parameters
    ----------
    folder : path
        The folder.
    path : path
        Where the memory is to lie: a folder that is missing or empty.
    max_bytes : int or str, optional
        Budget; that of the exported memory when left out. What does not fit is evicted by policy.

    Returns
    -------
    ExemplarMemory
        The memory, open for writing and committed. Slots are given anew.

    Raises
    ------
    DataError
        If a file is missing or not in the expected form. Where the memory had been begun by then, the error says that
        it is incomplete.
    """
    root = Path(folder)
    head = _head(root / "memory.json")
    memory = ExemplarMemory.create(
        path,
        schema=head.schema,
        max_bytes=head.max_bytes if max_bytes is None else max_bytes,
        eviction=head.eviction,
        quota=head.quota.unit,
        max_exemplars=head.max_exemplars,
    )
    incomplete = f"the memory at {path} is incomplete, remove it"
    with contextlib.ExitStack() as on_error:
        on_error.push(memory)  # discards and closes
        try:
            _fill(memory, root, head)
        except ExmemError as error:
            raise type(error)(f"{error}; {incomplete}") from error
        except BaseException as error:
            error.add_note(incomplete)
            raise
        on_error.pop_all()
    return memory


def is_image(spec: TokenSpec) -> bool:
    """Say whether the tokens of a modality can be drawn: uint8 of shape (h, w), (h, w, 1) or (h, w, 3).

    Parameters
    ----------
    spec : TokenSpec
        The modality.

    Returns
    -------
    bool
        True for a patch or an image.
    """
    shape = tuple(spec.shape)
    return spec.dtype == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3}))


class _Head(NamedTuple):
    """What `memory.json` says."""

    schema: Schema
    max_bytes: int
    max_exemplars: int | None
    eviction: Any
    quota: Quota
    attrs: Mapping[str, Any]
    class_names: Mapping[int, str]


def _head(file: Path) -> _Head:
    try:
        head = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: expected what `exmem export` writes, got {error}") from error
    if not isinstance(head, dict) or head.get("exmem_export") != _VERSION:
        raise DataError(f"{file}: expected an export of version {_VERSION}, got {str(head)[:80]}")
    most = head.get("max_exemplars")  # what has a default here is missing in exports of old versions
    try:
        return _Head(
            schema=Schema.from_json(head["schema"]),
            max_bytes=operator.index(head["max_bytes"]),
            max_exemplars=None if most is None else operator.index(most),
            eviction=head.get("eviction", "by_class"),
            quota=Quota.from_json(head["quota"]) if "quota" in head else Quota(),
            attrs=dict(head.get("attrs", {})),
            class_names={int(label): str(name) for label, name in dict(head.get("class_names", {})).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: {type(error).__name__}: {error}; export the memory again") from error


def _fill(memory: ExemplarMemory, root: Path, head: _Head) -> None:
    # Before the exemplars: what does not fit goes by the weights.
    if head.quota.weights:
        memory.weigh(head.quota.weights)
    if head.attrs or head.class_names:
        memory.annotate(attrs=head.attrs, class_names=head.class_names)
    exemplars = _exemplars(root, head.schema)
    while batch := list(itertools.islice(exemplars, _BATCH)):
        memory.add(batch)
    memory.commit()


def _line(root: Path, schema: Schema, slot: int, exemplar: Exemplar) -> dict[str, Any]:
    tokens: dict[str, Any] = {}
    for name, kept in exemplar.tokens.items():
        spec = schema.modalities[name]
        tokens[name] = {"positions": kept.positions.tolist()}
        if is_image(spec):
            tokens[name]["file"] = f"files/{slot}-{name}.png"
            (root / tokens[name]["file"]).write_bytes(imagecodecs.png_encode(_canvas(spec, kept)))
        elif kept.values.size <= _INLINE and kept.values.dtype.kind in "iub":
            tokens[name]["values"] = kept.values.tolist()
        else:
            tokens[name]["file"] = f"files/{slot}-{name}.npy"
            np.save(root / tokens[name]["file"], kept.values, allow_pickle=False)
    extras = {name: np.asarray(value).tolist() for name, value in exemplar.extras.items()}
    priority = exemplar.priority if math.isfinite(exemplar.priority) else str(exemplar.priority)  # JSON has no infinity
    return {"slot": slot, "label": exemplar.label, "priority": priority, "tokens": tokens, "extras": extras}


def _exemplars(root: Path, schema: Schema) -> Iterator[Exemplar]:
    file = root / "metadata.jsonl"
    try:
        lines = file.open("rb")
    except OSError as error:
        raise DataError(f"{file}: {error}; export the memory again") from error
    with lines:
        for number, text in enumerate(lines, 1):
            try:
                exemplar = _exemplar(root, schema, json.loads(text))
            except _WRONG as error:
                raise DataError(
                    f"{file}, line {number}: {type(error).__name__}: {error}; correct or drop the line"
                ) from error
            yield exemplar


def _exemplar(root: Path, schema: Schema, line: Any) -> Exemplar:
    tokens = {name: _tokens(root, spec, line["tokens"][name]) for name, spec in schema.modalities.items()}
    extras = {
        name: np.asarray(line["extras"][name], str(field.dtype)).reshape(field.shape)
        for name, field in schema.extras.items()
    }
    return Exemplar(tokens, label=operator.index(line["label"]), priority=float(line["priority"]), extras=extras)


def _tokens(root: Path, spec: TokenSpec, entry: dict[str, Any]) -> TokenSet:
    positions = np.asarray(entry["positions"], np.int64)
    if "values" in entry:
        values = np.asarray(entry["values"], str(spec.dtype)).reshape(len(positions), *spec.shape)
        return TokenSet(positions, values)
    file = root / entry["file"]
    if not file.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{entry['file']} leads out of {root}")
    if file.suffix == ".npy":
        return TokenSet(positions, np.load(file, allow_pickle=False))
    canvas = np.asarray(imagecodecs.png_decode(file.read_bytes()))
    return TokenSet(positions, _cut(spec, canvas)[positions])


def _grid(spec: TokenSpec) -> tuple[int, int]:
    side = math.isqrt(spec.positions)
    return (side, side) if side * side == spec.positions else (spec.positions, 1)


def _canvas(spec: TokenSpec, tokens: TokenSet) -> NDArray[np.uint8]:
    """Return the whole image, black where a token was dropped."""
    rows, columns = _grid(spec)
    height, width, *channels = spec.shape
    dense = np.zeros((rows * columns, *spec.shape), np.uint8)
    dense[tokens.positions] = tokens.values
    tiles = dense.reshape(rows, columns, height, width, -1).transpose(0, 2, 1, 3, 4)
    image = np.ascontiguousarray(tiles.reshape(rows * height, columns * width, -1))
    return image if channels == [3] else image[..., 0]


def _cut(spec: TokenSpec, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = _grid(spec)
    height, width, *_ = spec.shape
    if canvas.shape[:2] != (rows * height, columns * width):
        raise DataError(f"expected an image of {(rows * height, columns * width)}, got {canvas.shape[:2]}")
    tiles = canvas.reshape(rows, height, columns, width, -1).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(tiles).reshape(rows * columns, *spec.shape)
