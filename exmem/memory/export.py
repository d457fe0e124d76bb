"""A memory as a plain folder of images and metadata, and back."""

import contextlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from exmem.checks import choice, fitting, label_of, mapping_of, real_number, shown, whole_number
from exmem.errors import CorruptExemplarError, DataError, ExmemError
from exmem.memory.holdings import EVICTIONS
from exmem.memory.memory import ExemplarMemory
from exmem.memory.quota import Quota
from exmem.memory.reservoir import checked_state, raised
from exmem.store.encode import check_tokens
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec

__all__ = ["export_folder", "import_folder", "is_image"]

_BATCH = 64
_INLINE = 64  # values that are written into the metadata
_VERSION = 1
_HEAD, _LINES, _FILES = "memory.json", "metadata.jsonl", "files"
_UNFINISHED = ".exmem-export"  # holds all of an export until it is whole
_INFINITIES = {str(value): value for value in (math.inf, -math.inf)}  # JSON has none
_WRONG = (LookupError, TypeError, ValueError, OSError, RuntimeError, AttributeError, OverflowError)  # by a wrong line


def export_folder(memory: ExemplarMemory, folder: str | os.PathLike[str]) -> int:
    """Write all exemplars as files that any program reads.

    `memory.json` holds schema, budget, charges, eviction, quota, attributes, class names and the state of a stream,
    `metadata.jsonl` a line per exemplar: slot, label, priority, extra fields, and per modality the positions and either
    the values or the name of a file. Image patches become a PNG with the patches in their places (dropped ones are
    black), all else a `.npy` file. `memory.json` comes last: a folder without it is no export, and one that fails
    leaves nothing behind.

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
        If the folder is not empty or cannot be written.
    CorruptExemplarError
        If exemplars are damaged; the message lists them.
    """
    root, made = Path(folder).expanduser(), list[Path]()
    try:
        made = [path for path in (root, *root.parents) if not path.exists()]
        unfinished = root / _UNFINISHED
        root.mkdir(parents=True, exist_ok=True)
        if there := sorted(path.name for path in root.iterdir()):
            raise DataError(f"{root} is not empty ({shown(there[0])} is there); choose another folder")
        try:
            (unfinished / _FILES).mkdir(parents=True)
            number = _write(memory, unfinished)
            for name in (_FILES, _LINES, _HEAD):
                (unfinished / name).rename(root / name)
            unfinished.rmdir()
        except BaseException:
            for name in (_UNFINISHED, _FILES):
                shutil.rmtree(root / name, ignore_errors=True)
            for name in (_LINES, _HEAD):
                (root / name).unlink(missing_ok=True)
            raise
    except BaseException as error:
        for path in made:
            with contextlib.suppress(OSError):  # it was not made, or another program has put something there
                path.rmdir()
        if isinstance(error, OSError | ValueError | RuntimeError) and not isinstance(error, ExmemError):
            raise DataError(f"{shown(str(root))} cannot be written: {error}; choose another folder") from error
        raise
    return number


def _write(memory: ExemplarMemory, root: Path) -> int:
    """Write everything into a folder and return the exemplars."""
    head = {
        "exmem_export": _VERSION,
        "max_bytes": memory.max_bytes,
        "max_exemplars": memory.max_exemplars,
        "eviction": memory.eviction,
        "quota": memory.quota.to_json(),
        "charges": memory.charges,
        "reservoir_state": memory.reservoir_state,
        "attrs": memory.attrs,
        "class_names": {str(label): name for label, name in memory.class_names.items()},
        "schema": memory.schema.to_json(),
    }
    (root / _HEAD).write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    slots = memory.slots
    with (root / _LINES).open("w", encoding="utf-8") as lines:
        for start in range(0, len(slots), _BATCH):
            chosen = slots[start : start + _BATCH]
            try:
                batch = memory.read(chosen)
            except CorruptExemplarError as error:
                damaged = _damaged(memory, slots[start:].tolist())
                raise CorruptExemplarError(
                    f"{memory.location}: exemplars {shown(damaged)} are damaged, nothing was exported ({error}); "
                    "`exmem check` lists the damage, `exmem repair` drops it"
                ) from error
            for row, slot in enumerate(chosen.tolist()):
                line = _line(root, memory.schema, slot, batch.exemplar(row))
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(slots)


def _damaged(memory: ExemplarMemory, slots: list[int]) -> list[int]:
    damaged = []
    for slot in slots:
        try:
            memory.read([slot])
        except CorruptExemplarError:
            damaged.append(slot)
    return damaged


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
        Budget; that of the exported memory when left out. What does not fit is evicted by policy, and raises the
        threshold of a stream.

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
    try:
        root = Path(folder).expanduser()
    except (TypeError, RuntimeError) as error:
        raise DataError(f"expected the folder of an export, got {shown(folder)} ({error})") from error
    head = _head(root / _HEAD)
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
    charges: Mapping[str, int]
    reservoir: Mapping[str, Any] | None
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
    eviction, stream = head.get("eviction", "by_class"), head.get("reservoir_state")
    names = head.get("class_names", {})
    try:
        choice(eviction, "eviction", EVICTIONS)
        if stream is not None and eviction != "by_priority":
            raise DataError("a stream needs eviction 'by_priority'")
        return _Head(
            schema=Schema.from_json(head["schema"]),
            max_bytes=whole_number(head["max_bytes"], "max_bytes"),
            max_exemplars=None if most is None else whole_number(most, "max_exemplars"),
            eviction=eviction,
            quota=Quota.from_json(head["quota"]) if "quota" in head else Quota(),
            charges={
                name: whole_number(size, f"the charge {shown(name)}")
                for name, size in mapping_of(head.get("charges", {}), "charges").items()
            },
            reservoir=None if stream is None else checked_state(mapping_of(stream, "reservoir_state"), "the stream"),
            attrs=dict(mapping_of(head.get("attrs", {}), "attrs")),
            class_names={int(label): _text(name) for label, name in mapping_of(names, "class_names").items()},
        )
    except (ExmemError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: {type(error).__name__}: {error}; export the memory again") from error


def _fill(memory: ExemplarMemory, root: Path, head: _Head) -> None:
    # Before the exemplars: what does not fit goes by the weights.
    for name, size in head.charges.items():
        memory.charge(name, size)
    if head.quota.weights:
        memory.weigh(head.quota.weights)
    if head.attrs or head.class_names:
        memory.annotate(attrs=head.attrs, class_names=head.class_names)
    exemplars = _exemplars(root, head.schema)
    stream = head.reservoir
    if stream is not None:
        memory._set_reservoir(stream)
    while batch := list(itertools.islice(exemplars, _BATCH)):
        if stream is None:
            memory.add(batch)
        else:
            _add_of_stream(memory, batch, stream["threshold"])
    memory.commit()


def _add_of_stream(memory: ExemplarMemory, batch: list[Exemplar], exported: float) -> None:
    """Add what a stream held; what does not fit now raises the threshold, and what is below that stays out."""
    state = memory.reservoir_state
    assert state is not None, "it was set before the first exemplar"
    coming = [one for one in batch if one.priority > state["threshold"] or state["threshold"] == exported]
    report = memory.add(coming)
    down = [one.priority for one, slot in zip(coming, report.slots.tolist(), strict=True) if slot < 0]
    memory._set_reservoir(raised(memory.reservoir_state or state, [*report.evicted_priorities.tolist(), *down]))


def _line(root: Path, schema: Schema, slot: int, exemplar: Exemplar) -> dict[str, Any]:
    tokens: dict[str, Any] = {}
    for name, kept in exemplar.tokens.items():
        spec = schema.modalities[name]
        tokens[name] = {"positions": kept.positions.tolist()}
        if is_image(spec):
            tokens[name]["file"] = f"{_FILES}/{slot}-{name}.png"
            (root / tokens[name]["file"]).write_bytes(imagecodecs.png_encode(_canvas(spec, kept)))
        elif kept.values.size <= _INLINE and kept.values.dtype.kind in "iub":
            tokens[name]["values"] = kept.values.tolist()
        else:
            tokens[name]["file"] = f"{_FILES}/{slot}-{name}.npy"
            np.save(root / tokens[name]["file"], kept.values, allow_pickle=False)
    extras = {name: np.asarray(value).tolist() for name, value in exemplar.extras.items()}
    priority = exemplar.priority if math.isfinite(exemplar.priority) else str(exemplar.priority)
    return {"slot": slot, "label": exemplar.label, "priority": priority, "tokens": tokens, "extras": extras}


def _exemplars(root: Path, schema: Schema) -> Iterator[Exemplar]:
    file = root / _LINES
    try:
        lines = file.open("rb")
    except OSError as error:
        raise DataError(f"{file}: {error}; export the memory again") from error
    with lines:
        for number, text in enumerate(lines, 1):
            try:
                exemplar = _exemplar(root, schema, json.loads(text))
            except _WRONG as error:
                what = f"{error}" if isinstance(error, ExmemError) else f"{type(error).__name__}: {error}"
                raise DataError(f"{file}, line {number}: {what}; correct or drop the line") from error
            yield exemplar


def _exemplar(root: Path, schema: Schema, line: Any) -> Exemplar:
    tokens = {name: _tokens(root, spec, line["tokens"][name]) for name, spec in schema.modalities.items()}
    for name, spec in schema.modalities.items():
        check_tokens(repr(name), tokens[name], spec)
    extras = {
        name: _array(line["extras"][name], str(field.dtype), field.shape, f"extra field {name!r}")
        for name, field in schema.extras.items()
    }
    label = label_of(line["label"])
    given = line["priority"]
    priority = real_number(_INFINITIES.get(given, given) if isinstance(given, str) else given, "priority")
    return Exemplar(tokens, label=label, priority=priority, extras=extras)


def _tokens(root: Path, spec: TokenSpec, entry: dict[str, Any]) -> TokenSet:
    positions = _array(entry["positions"], "int64", (len(entry["positions"]),), "positions")
    if "values" in entry:
        values = _array(entry["values"], str(spec.dtype), (len(positions), *spec.shape), "values")
        return TokenSet(positions, values)
    file = root / entry["file"]
    if not file.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{entry['file']} leads out of {root}")
    if file.suffix == ".npy":
        return TokenSet(positions, np.load(file, allow_pickle=False))
    canvas = np.asarray(imagecodecs.png_decode(file.read_bytes()))
    return TokenSet(positions, _cut(spec, canvas)[positions])


def _array(entry: Any, dtype: str, shape: Sequence[int], what: str) -> NDArray[Any]:
    """Return numbers of a line as an array, by the rules of `add`; NumPy would cast text, null and fractions."""
    if 0 in shape and entry == []:
        return np.zeros(shape, dtype)
    given = np.asarray(entry, object)  # so that each is looked at as it was written
    kind = np.dtype(dtype).kind
    known = {"b": (bool,), "f": (int, float)}.get(kind, (int,))
    strange = [leaf for leaf in given.flat if type(leaf) not in known]
    if strange:
        raise DataError(f"{what}: expected {dtype}, got {shown(strange[0])}")
    if kind in "iu" and given.size:  # NumPy makes floats of whole numbers of both signs and 64 bits
        span = np.iinfo(dtype)
        for number in (given.min(), given.max()):
            whole_number(number, what, least=int(span.min), most=int(span.max), error=DataError)
    return fitting(given.astype(np.float64 if kind == "f" else dtype), dtype, shape, what, error=DataError)


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise DataError(f"expected text as the name of a class, got {shown(name)}")
    return name


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
