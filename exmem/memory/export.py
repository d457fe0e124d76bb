"""A memory as a plain folder of images and metadata, and back.

`memory.json` holds schema, budget, charges, eviction, quota, attributes, class names and the state of a stream,
`metadata.jsonl` a line per exemplar: slot, label, priority, extra fields, and per modality the positions and either the
values or the name of a file. Image patches become a PNG with the patches in their places (dropped ones are black), all
else a `.npy` file. `memory.json` comes last: a folder without it is no export, and one that fails leaves nothing
behind.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from exmem.errors import CorruptExemplarError, DataError, ExmemError
from exmem.memory.holdings import EVICTIONS
from exmem.memory.lines import FILES, exemplar_of, is_image, line_of
from exmem.memory.memory import ExemplarMemory
from exmem.memory.quota import Quota
from exmem.memory.reservoir import checked_state
from exmem.tokens import Exemplar, Schema
from exmem.tokens.checks import choice, mapping_of, shown, whole_number

__all__ = ["export_folder", "import_folder", "is_image"]

_BATCH = 64
_VERSION = 1
_HEAD, _LINES = "memory.json", "metadata.jsonl"
_UNFINISHED = ".exmem-export"  # holds all of an export until it is whole
_WRONG = (LookupError, TypeError, ValueError, OSError, RuntimeError, AttributeError, OverflowError)  # by a wrong line


def export_folder(memory: ExemplarMemory, folder: str | os.PathLike[str]) -> int:
    """Write all exemplars as files that any program reads, into a folder that is missing or empty; return how many.

    DataError if the folder is not empty or cannot be written; CorruptExemplarError lists the exemplars that are
    damaged.
    """
    with _whole(_path(folder)) as root:
        return _write(memory, root)


def _path(folder: str | os.PathLike[str]) -> Path:
    try:
        return Path(folder).expanduser()
    except (TypeError, RuntimeError) as error:
        raise DataError(f"expected the path of a folder, got {shown(folder)} ({error})") from error


@contextlib.contextmanager
def _whole(root: Path) -> Iterator[Path]:
    """Give a folder within an empty one to write into; its files take their places at the end, or all are removed."""
    new_folders, unfinished = list[Path](), root / _UNFINISHED
    try:
        new_folders = [path for path in (root, *root.parents) if not path.exists()]
        root.mkdir(parents=True, exist_ok=True)
        if present := sorted(path.name for path in root.iterdir()):
            raise DataError(f"{root} is not empty ({shown(present[0])} is there); choose another folder")
        try:
            (unfinished / FILES).mkdir(parents=True)
            yield unfinished
            for name in (FILES, _LINES, _HEAD):
                (unfinished / name).rename(root / name)
            unfinished.rmdir()
        except BaseException:
            for name in (_HEAD, _LINES):
                (root / name).unlink(missing_ok=True)
            for name in (FILES, _UNFINISHED):
                shutil.rmtree(root / name, ignore_errors=True)
            raise
    except BaseException as error:
        for path in new_folders:
            with contextlib.suppress(OSError, ValueError):  # it was not made, or others have put something there
                path.rmdir()
        if isinstance(error, OSError | ValueError) and not isinstance(error, ExmemError):
            raise DataError(f"{shown(str(root))} cannot be written: {error}; choose another folder") from error
        raise


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
                    f"{memory.location}: damaged exemplars ({len(damaged)}): {shown(damaged)}; nothing was exported "
                    f"({error}); `exmem check` lists the damage, `exmem repair` drops it"
                ) from error
            for row, slot in enumerate(chosen.tolist()):
                line = line_of(root, memory.schema, slot, batch.exemplar(row))
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
    """Make a memory out of what `export_folder` wrote: open for writing and committed, with slots given anew.

    Lossy codecs encode once more. The budget is that of the exported memory where `max_bytes` is left out; what does
    not fit is evicted by policy, and raises the threshold of a stream. DataError if a file is missing or not in the
    expected form; where the memory had been begun by then, it says that it is incomplete.
    """
    root = _path(folder)
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
        memory._add_to_stream([], stream, 0)
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
    memory._add_to_stream(coming, state, 0)


def _exemplars(root: Path, schema: Schema) -> Iterator[Exemplar]:
    file = root / _LINES
    try:
        lines = file.open("rb")
    except OSError as error:
        raise DataError(f"{file}: {error}; export the memory again") from error
    with lines:
        for number, text in enumerate(lines, 1):
            try:
                exemplar = exemplar_of(root, schema, json.loads(text))
            except _WRONG as error:
                what = f"{error}" if isinstance(error, ExmemError) else f"{type(error).__name__}: {error}"
                raise DataError(f"{file}, line {number}: {what}; correct or drop the line") from error
            yield exemplar


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise DataError(f"expected text as the name of a class, got {shown(name)}")
    return name
