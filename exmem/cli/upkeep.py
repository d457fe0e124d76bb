"""`exmem check`, `repair`, `compact`, `export`, `import`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import tyro

from exmem.cli.ending import DAMAGED
from exmem.cli.output import make_console, write_json
from exmem.cli.places import find_store
from exmem.cli.words import BytesOrNone
from exmem.memory import ExemplarMemory
from exmem.memory.export import export_folder, import_folder
from exmem.memory.maintenance import Damage, describe
from exmem.memory.maintenance import check as check_store
from exmem.memory.maintenance import compact as compact_store
from exmem.memory.maintenance import repair as repair_store
from exmem.store import format_bytes

__all__ = ["check", "compact", "export", "import_", "repair"]

_Store = Annotated[Path, tyro.conf.arg(metavar="STORE|RUN")]
_Folder = Annotated[Path, tyro.conf.arg(metavar="FOLDER")]


def check(path: _Store, /, *, json: bool = False) -> None:
    """Read and decode every byte of a memory; list what is damaged with file and exemplars.

    Exit code 0: all is well. 3: there is damage. 1: it cannot be opened.

    Parameters
    ----------
    path : Path
        Folder of the memory.
    json : bool
        Answer with JSON.

    Raises
    ------
    SystemExit
        With code 3 when there is damage.
    """
    damage = check_store(find_store(path)[0])
    _tell({"damage": _plain(damage)}, [*describe(damage), _summary(damage)], json=json)
    if damage:
        raise SystemExit(DAMAGED)


def repair(path: _Store, /, *, json: bool = False) -> None:
    """Drop exactly the exemplars that are damaged, and write damaged metadata again.

    Exit code 0: the memory is whole now. 3: damage is left. 1: it cannot be opened.

    Parameters
    ----------
    path : Path
        Folder of the memory.
    json : bool
        Answer with JSON.

    Raises
    ------
    SystemExit
        With code 3 when damage is left.
    """
    report = repair_store(find_store(path)[0])
    described = {
        "damage": _plain(report.damage),
        "dropped": list(report.dropped),
        "left": _plain(report.left),
        "lost": report.lost,
    }
    lines = [*describe(report.damage), f"dropped {len(report.dropped)} exemplars: {list(report.dropped)}"]
    if report.lost:
        lines.append(f"lost with the catalog: at most {report.lost} exemplars, which ones cannot be told")
    _tell(described, [*lines, _summary(report.left)], json=json)
    if report.left:
        raise SystemExit(DAMAGED)


def compact(path: _Store, /, *, json: bool = False) -> None:
    """Pack the exemplars of a memory into as few files as they need; their slots stay.

    Parameters
    ----------
    path : Path
        Folder of the memory.
    json : bool
        Answer with JSON.
    """
    report = compact_store(find_store(path)[0])
    described = {"before_bytes": report.before_bytes, "after_bytes": report.after_bytes}
    _tell(described, [f"{format_bytes(report.before_bytes)} -> {format_bytes(report.after_bytes)}"], json=json)


def export(path: _Store, folder: _Folder, /, *, json: bool = False) -> None:
    """Write a memory as a plain folder: images as PNG, positions, labels and the rest as JSON and .npy.

    Parameters
    ----------
    path : Path
        Folder of the memory.
    folder : Path
        Where to; missing or empty.
    json : bool
        Answer with JSON.
    """
    with ExemplarMemory.open(find_store(path)[0]) as memory:
        number = export_folder(memory, folder)
    _tell({"exemplars": number, "folder": str(folder)}, [f"{number} exemplars in {folder}"], json=json)


def import_(
    folder: _Folder,
    path: _Store,
    /,
    *,
    max_bytes: BytesOrNone = None,
    json: bool = False,
) -> None:
    """Make a memory out of an exported folder; lossy codecs encode once more.

    Parameters
    ----------
    folder : Path
        What `exmem export` wrote.
    path : Path
        Folder of the new memory; missing or empty.
    max_bytes : str, optional
        Budget, such as 64MB; that of the exported memory when left out.
    json : bool
        Answer with JSON.
    """
    with import_folder(folder, path, max_bytes=max_bytes) as memory:
        described = {"exemplars": len(memory), "used_bytes": memory.used_bytes, "max_bytes": memory.max_bytes}
    used, budget = format_bytes(described["used_bytes"]), format_bytes(described["max_bytes"])
    _tell(described, [f"{described['exemplars']} exemplars, {used} of {budget}"], json=json)


def _summary(damage: "list[Damage] | tuple[Damage, ...]") -> str:
    return f"{len(damage)} places are damaged" if damage else "no damage"


def _plain(damage: "list[Damage] | tuple[Damage, ...]") -> list[dict[str, object]]:
    return [dataclasses.asdict(place) for place in damage]


def _tell(described: Mapping[str, object], lines: list[str], *, json: bool) -> None:
    if json:
        write_json(described)
        return
    console = make_console()
    for line in lines:
        console.print(line, soft_wrap=True)
