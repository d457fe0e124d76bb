"""A memory as a plain folder of pictures and metadata, and back."""

import json
import math
import operator
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from exmem.budget import Quota
from exmem.errors import DataError
from exmem.memory import ExemplarMemory
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec

__all__ = ["export_folder", "import_folder", "is_picture"]

_BATCH = 64
_INLINE = 64  # values that are written into the metadata
_VERSION = 1


def export_folder(memory: ExemplarMemory, folder: str | os.PathLike[str]) -> int:
    """Write all exemplars as files that any program reads.

    `memory.json` holds schema, budget, eviction and quota, `metadata.jsonl` a line per exemplar: slot, label, priority,
    extra fields, and per modality the positions and either the values or the name of a file. Image patches become a PNG
    with the patches in their places (dropped ones are black), all else a `.npy` file.

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
        "eviction": memory.eviction,
        "quota": memory.quota.to_json(),
        "schema": memory.schema.to_json(),
    }
    (root / "memory.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    slots = memory.slots
    with (root / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for start in range(0, len(slots), _BATCH):
            chosen = slots[start : start + _BATCH]
            batch = memory.read(chosen)
            for row, slot in enumerate(chosen.tolist()):
                exemplar = batch.exemplar(row)
                line = _line(root, memory.schema, slot, exemplar)
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
        The memory, open for writing and committed.

    Raises
    ------
    DataError
        If a file is missing or not in the expected form; nothing is made then, or what was made is incomplete and
        says so by the error.
    """
    root = Path(folder)
    head = _json(root / "memory.json")
    if not isinstance(head, dict) or head.get("exmem_export") != _VERSION:
        raise DataError(f"{root / 'memory.json'}: expected an export of version {_VERSION}, got {str(head)[:80]}")
    schema = Schema.from_json(head["schema"])
    quota = Quota.from_json(head["quota"]) if "quota" in head else Quota()  # exports of old versions have none
    memory = ExemplarMemory.create(
        path,
        schema=schema,
        max_bytes=max_bytes or head["max_bytes"],
        eviction=head.get("eviction", "by_class"),
        quota=quota.unit,
    )
    try:
        if quota.weights:
            memory.weigh(quota.weights)
        batch: list[Exemplar] = []
        for exemplar in _exemplars(root, schema):
            batch.append(exemplar)
            if len(batch) == _BATCH:
                memory.add(batch)
                batch = []
        memory.add(batch)
        memory.commit()
    except BaseException:
        memory.discard()
        memory.close()
        raise
    return memory


def is_picture(spec: TokenSpec) -> bool:
    """Say whether the tokens of a modality can be drawn: uint8 of shape (h, w), (h, w, 1) or (h, w, 3).

    Parameters
    ----------
    spec : TokenSpec
        The modality.

    Returns
    -------
    bool
        True for a patch or a picture.
    """
    shape = tuple(spec.shape)
    return spec.dtype == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3}))


def _line(root: Path, schema: Schema, slot: int, exemplar: Exemplar) -> dict[str, Any]:
    tokens: dict[str, Any] = {}
    for name, found in exemplar.tokens.items():
        spec = schema.modalities[name]
        tokens[name] = {"positions": found.positions.tolist()}
        if is_picture(spec):
            tokens[name]["file"] = f"files/{slot}-{name}.png"
            (root / tokens[name]["file"]).write_bytes(imagecodecs.png_encode(_canvas(spec, found)))
        elif found.values.size <= _INLINE and found.values.dtype.kind in "iub":
            tokens[name]["values"] = found.values.tolist()
        else:
            tokens[name]["file"] = f"files/{slot}-{name}.npy"
            np.save(root / tokens[name]["file"], found.values, allow_pickle=False)
    extras = {name: np.asarray(value).tolist() for name, value in exemplar.extras.items()}
    own = {"slot": slot, "label": exemplar.label, "priority": _number(exemplar.priority), "tokens": tokens}
    return own | {"extras": extras}


def _exemplars(root: Path, schema: Schema) -> Iterator[Exemplar]:
    try:
        lines = (root / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{root / 'metadata.jsonl'}: {error}; export the memory again") from error
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            tokens = {name: _tokens(root, spec, line["tokens"][name]) for name, spec in schema.modalities.items()}
            extras = {
                name: np.asarray(line["extras"][name], str(field.dtype)).reshape(field.shape)
                for name, field in schema.extras.items()
            }
            yield Exemplar(tokens, label=operator.index(line["label"]), priority=float(line["priority"]), extras=extras)
        except (KeyError, TypeError, ValueError, OSError, RuntimeError, AttributeError) as error:
            raise DataError(
                f"{root / 'metadata.jsonl'}, line {number}: {type(error).__name__}: {error}; correct or drop the line"
            ) from error


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
    rows, columns = _grid(spec)
    height, width, *channels = spec.shape
    dense = np.zeros((rows * columns, *spec.shape), np.uint8)
    dense[tokens.positions] = tokens.values
    tiles = dense.reshape(rows, columns, height, width, -1).transpose(0, 2, 1, 3, 4)
    picture = np.ascontiguousarray(tiles.reshape(rows * height, columns * width, -1))
    return picture if channels == [3] else picture[..., 0]


def _cut(spec: TokenSpec, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = _grid(spec)
    height, width, *_ = spec.shape
    if canvas.shape[:2] != (rows * height, columns * width):
        raise DataError(f"expected a picture of {(rows * height, columns * width)}, got {canvas.shape[:2]}")
    tiles = canvas.reshape(rows, height, columns, width, -1).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(tiles).reshape(rows * columns, *spec.shape)


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no infinity


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: expected what `exmem export` writes, got {error}") from error
