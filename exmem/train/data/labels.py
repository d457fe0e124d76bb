"""Names of classes: what a cell means, in which order they come, and which look alike."""

import collections
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

__all__ = ["Number", "alike", "class_name", "natural", "plain_form"]

_WHOLE = re.compile(r"(-?\d+)\.0")
_NOTHING = {"na", "n/a", "nan", "null", "none", "<na>"}


class Number(str):
    """A number of JSON as it is written there, so that no digit is lost or invented."""

    __slots__ = ()


def class_name(cell: Any) -> str | None:
    """Return the class that a cell names, None where it names none; a whole number loses its `.0`."""
    if isinstance(cell, Number):  # of JSON, where 1.50 and 1.5 are one value
        cell = str(cell) if cell.lstrip("-").isdecimal() else repr(float(cell))
    name = str(cell) if isinstance(cell, str | bool) else ""
    whole = _WHOLE.fullmatch(name.strip())  # as pandas and spreadsheets write integers beside an empty cell
    return whole[1] if whole else name if name.strip() else None


def natural(name: str) -> tuple[int, int, str]:
    """Sort numbers by value, before words; those of one value ("1", "01") by how they are written."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def plain_form(name: str) -> str:
    """Return a name without what the eye overlooks: case, blanks at its ends or doubled, the form of its accents."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def alike(names: Iterable[str]) -> list[str]:
    """Say which names of classes look alike, and which look as if there were none."""
    groups = collections.defaultdict(list)
    for name in sorted(set(names)):
        groups[plain_form(name)].append(name)
    lines = []
    for same in groups.values():
        if len(same) > 1:
            composed = len({unicodedata.normalize("NFC", name) for name in same}) < len(same)
            shown = ", ".join(ascii(name) if composed else repr(name) for name in same)
            lines.append(f"the classes {shown} look alike and stay apart; write them alike if they are one")
    empty = [name for plain, same in groups.items() if plain in _NOTHING for name in same]
    if empty:
        lines.append(f"{', '.join(map(repr, empty))} are taken as names of classes; drop the rows if they mean none")
    return lines
