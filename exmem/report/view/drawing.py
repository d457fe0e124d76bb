"""A sheet as a picture."""

import re
import textwrap
import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exmem.report.view.sheet import Card, Passage, Piece, Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_sheet"]

_MOST = 48  # cards; a picture of more would be too tall for most programs
_PANEL, _GAP, _MARGIN, _LINE = 1.9, 0.12, 0.3, 0.17  # inches
_WIDTH = 13.4  # inches of a sheet, at most, unless one card is wider
_LETTER = 0.602 * 8 / 72  # inches: advance of DejaVu Sans Mono at 8 points
_MIN_CARD = 3.6
_INK, _DIM = "#1c2330", "#7a8496"
_COLOURS = {"kept": "#0b6b35", "lost": "#9aa3b2", "plain": _INK}


def draw_sheet(sheet: Sheet, path: Path) -> None:
    """Draw a sheet as a PNG file.

    Parameters
    ----------
    sheet : Sheet
        What to show; of more than 48 cards the first are drawn, and the picture says so.
    path : Path
        The PNG file.
    """
    from matplotlib.figure import Figure

    cards = sheet.cards[:_MOST]
    panels = max((len(card.panels) for card in cards), default=0)
    card_width = max(_MIN_CARD, panels * (_PANEL + _GAP) - _GAP)
    across = max(1, min(len(cards), int((_WIDTH - 2 * _MARGIN) // (card_width + 2 * _GAP))))
    width = max(across * (card_width + 3 * _GAP) - 3 * _GAP, _MIN_CARD * 2) + 2 * _MARGIN
    head = _head(sheet, width - 2 * _MARGIN)
    lines = [cards[start : start + across] for start in range(0, len(cards), across)]
    heights = [max(_card_height(card, card_width) for card in line) for line in lines]
    height = 2 * _MARGIN + (len(head) + 1.5) * _LINE + sum(heights) + 3 * _GAP * len(lines)
    figure = Figure(figsize=(width, height), facecolor="white")
    pen = _Pen(figure, width, height)
    top = _MARGIN
    pen.text(_MARGIN, top, sheet.title, size=12, weight="bold")
    top += 1.5 * _LINE
    for text in head:
        pen.text(_MARGIN, top, text, colour=_DIM)
        top += _LINE
    for line, tall in zip(lines, heights, strict=True):
        top += 3 * _GAP
        for at, card in enumerate(line):
            _draw_card(pen, card, _MARGIN + at * (card_width + 3 * _GAP), top, card_width)
        top += tall
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # letters that the font lacks are boxes here; the page has them
        figure.savefig(path, dpi=120)


class _Pen:
    """Puts things where they belong in inches from the top left corner."""

    def __init__(self, figure: "Figure", width: float, height: float) -> None:
        self._figure, self._width, self._height = figure, width, height

    def text(self, left: float, top: float, text: str, *, size: float = 8, colour: str = _INK, **more: Any) -> None:
        options = {"va": "baseline", "parse_math": False, "family": "DejaVu Sans Mono", **more}
        x, y = left / self._width, 1 - (top + size / 72) / self._height  # the baseline is the same for all words
        self._figure.text(x, y, text, fontsize=size, color=colour, **options)

    def rule(self, left: float, top: float, length: float, colour: str) -> None:
        from matplotlib.lines import Line2D

        x, y = [left / self._width, (left + length) / self._width], [1 - top / self._height] * 2
        self._figure.add_artist(Line2D(x, y, color=colour, linewidth=0.8))

    def picture(self, left: float, top: float, side: float, picture: Any) -> None:
        box = (left / self._width, 1 - (top + side) / self._height, side / self._width, side / self._height)
        axes = self._figure.add_axes(box)
        axes.axis("off")
        axes.set_anchor("NW")
        axes.imshow(picture)


def _head(sheet: Sheet, width: float) -> list[str]:
    letters = int(width / _LETTER)
    texts = [f"{name}: {value}" for name, value in sheet.facts.items()] + list(sheet.notes)
    if len(sheet.cards) > _MOST:
        texts.append(f"The first {_MOST} of {len(sheet.cards)} are drawn; the HTML page shows all.")
    return [line for text in texts for line in textwrap.wrap(text, letters)]


def _card_height(card: Card, width: float) -> float:
    lines = sum(len(_layout(passage, width)) + 1 for passage in card.passages) + len(_fact_lines(card, width))
    return (_PANEL + 1.3 * _LINE if card.panels else 0) + (lines + 1.6) * _LINE


def _draw_card(pen: _Pen, card: Card, left: float, top: float, width: float) -> None:
    pen.text(left, top, _cut(card.title, int(width / _LETTER * 8 / 9)), size=9, weight="bold")
    top += 1.3 * _LINE
    for at, panel in enumerate(card.panels):
        x = left + at * (_PANEL + _GAP)
        if panel.picture is None:
            pen.text(x, top, "none", colour=_DIM)
        else:
            pen.picture(x, top, _PANEL, panel.picture)
        pen.text(x, top + _PANEL + 0.03, _cut(panel.caption, int(_PANEL / _LETTER * 8 / 7)), size=7, colour=_DIM)
    top += _PANEL + 1.3 * _LINE if card.panels else 0
    for passage in card.passages:
        pen.text(left, top, passage.caption, size=7, colour=_DIM)
        top += _LINE
        for line in _layout(passage, width):
            for place, piece in line:
                x, letters = left + place * _LETTER, _letters(piece.text)
                pen.text(x, top, piece.text, colour=_COLOURS[piece.state])
                if piece.state == "lost":
                    pen.rule(x, top + 0.45 * _LINE, letters * _LETTER, _COLOURS["lost"])
            top += _LINE
    for text in _fact_lines(card, width):
        pen.text(left, top, text)
        top += _LINE


def _fact_lines(card: Card, width: float) -> list[str]:
    letters = int(width / _LETTER)
    texts = (f"{name}: {value}" for name, value in card.facts.items())
    return [line for text in texts for line in textwrap.wrap(text, letters, subsequent_indent="  ")]


def _layout(passage: Passage, width: float) -> list[list[tuple[int, Piece]]]:
    """Break a text into lines: the place of each piece in letters, and the piece."""
    letters, place = int(width / _LETTER), 0
    lines: list[list[tuple[int, Piece]]] = [[]]
    for piece in passage.pieces:
        for text in re.findall(rf"\s+|\S{{1,{letters // 2}}}", piece.text):
            if place + _letters(text) > letters and not text.isspace():
                lines.append([])
                place = 0
            if not text.isspace():
                lines[-1].append((place, Piece(text, piece.state)))
            place += _letters(text) if place or not text.isspace() else 0
    return lines


def _letters(text: str) -> int:
    """Count columns; wide letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 3] + "..."
