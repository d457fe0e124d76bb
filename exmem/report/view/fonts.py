"""Fonts that have the letters of a sheet."""

import contextlib
import unicodedata
from collections import Counter
from collections.abc import Collection

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

__all__ = ["MONOSPACED", "REPLACEMENT", "describe_letters", "find_families", "letters_of"]

MONOSPACED = "DejaVu Sans Mono"  # comes with matplotlib
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what stands for a letter that no font has
_BOXES = "Last Resort"  # comes with matplotlib 3.11: has every letter, as a box with the number of its block
_NAMED = 8  # letters in a note


def find_families(letters: Collection[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return families of installed fonts that have the letters between them, and the letters that none of them has."""
    lacking = {letter for letter in letters if ord(letter) > 0x7E}
    lacking -= letters_of(MONOSPACED, lacking)
    families, coverage = [MONOSPACED], _coverage(lacking) if lacking else {}
    while lacking and coverage:
        best = min(coverage, key=lambda family: (-len(coverage[family] & lacking), family))
        held = letters_of(best, coverage.pop(best) & lacking)
        if held:
            families.append(best)
            lacking -= held
    return tuple(families), frozenset(lacking)


def letters_of(family: str, letters: Collection[str], *, weight: str = "normal") -> set[str]:
    """Return the letters that the file has which matplotlib takes for a family in a weight."""
    return _letters_in(font_manager.findfont(font_manager.FontProperties(family=[family], weight=weight)), letters)


def describe_letters(counts: Counter[str]) -> str:
    """Name letters that cannot be drawn by their number and name in Unicode, the most frequent first."""
    named = [
        f"U+{ord(letter):04X} {unicodedata.name(letter, 'without a name')}" for letter, _ in counts.most_common(_NAMED)
    ]
    more = len(counts) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")


def _coverage(letters: set[str]) -> dict[str, set[str]]:
    """Return the letters that each family has in one of its files; families without any are left out."""
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - listed):  # installed since matplotlib listed the fonts
        with contextlib.suppress(RuntimeError, OSError):  # a kind of font that it cannot draw
            font_manager.fontManager.addfont(path)
    coverage: dict[str, set[str]] = {}
    read = set[str]()
    for entry in font_manager.fontManager.ttflist:
        if entry.fname not in read and not entry.name.startswith(_BOXES):
            read.add(entry.fname)
            held = _letters_in(entry.fname, letters)
            if held:
                coverage.setdefault(entry.name, set()).update(held)
    return coverage


def _letters_in(path: str, letters: Collection[str]) -> set[str]:
    try:
        font = FT2Font(path)
        font.set_size(8, 72)
        held = {letter for letter in letters if font.get_char_index(ord(letter))}
        return {letter for letter in held if font.load_char(ord(letter)).width}  # fonts of colours have empty shapes
    except (RuntimeError, OSError):  # a font of bitmaps, or a damaged one
        return set()
