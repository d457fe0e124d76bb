"""A sheet as an image."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import DrawingArea, HPacker, OffsetBox, OffsetImage, TextArea, VPacker
from matplotlib.patches import Rectangle
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from typing_extensions import override

from exmem.report.view.fonts import MONOSPACED, REPLACEMENT, describe_letters, find_families, letters_of
from exmem.report.view.sheet import Card, Panel, Passage, Piece, Sheet
from exmem.report.view.wrapping import cut_text, visual_order, wrap_pieces

__all__ = ["draw_sheet"]

_MOST = 48  # cards
_TALLEST = 12_000  # pixels of all cards; many programs show nothing that is taller
_DPI = 120
_SIDE, _GAP, _MARGIN = 137.0, 9.0, 22.0  # points; 72 are an inch
_WIDTH = 1190.0  # points of a sheet, at most, unless one card is wider
_ACROSS = 4  # images side by side in a card
_COLUMNS = 60  # letters of a line, at least
_PASSAGE, _FACT, _FACTS = 12, 3, 24  # lines of a text and of a fact, facts of a card
_INK, _DIM = "#1c2330", "#5a6474"
_KEPT, _KEPT_BACK, _LOST = "#0b4f26", "#d3f2dd", "#6b7482"


def draw_sheet(sheet: Sheet, path: Path) -> None:
    """Draw a sheet as a PNG file; what is too much for an image is cut, and the image says so.

    Parameters
    ----------
    sheet : Sheet
        What to show: the first 48 cards, or as many of them as fit 12,000 pixels; 12 lines of each text.
    path : Path
        The PNG file.

    Notes
    -----
    Letters that the font lacks are taken from any installed font that has them. What no font has is drawn as a
    replacement character, and a note names it.
    """
    figure = Figure(dpi=_DPI, facecolor="white")
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    cards = sheet.cards[:_MOST]
    pen = _Pen(figure, renderer, _texts(sheet, cards))
    panels = min(_ACROSS, max((len(card.panels) for card in cards), default=0))
    wide = max(pen.width(_COLUMNS), _pixels(panels * (_SIDE + _GAP) - _GAP))
    across = max(1, min(len(cards), int(_pixels(_WIDTH) // (wide + _pixels(2 * _GAP)))))
    rows, drawn, height = list[Any](), 0, 0.0
    while drawn < len(cards):
        boxes: list[Artist] = [_card_box(pen, card, wide) for card in cards[drawn : drawn + across]]
        row = HPacker(children=boxes, align="top", pad=0, sep=2 * _GAP)
        row.set_figure(figure)
        height += row.get_bbox(renderer).height + _pixels(2 * _GAP)
        if rows and height > _TALLEST:
            break
        rows.append(row)
        drawn += len(boxes)
    head = _head_box(pen, sheet, drawn, max(2 * pen.width(_COLUMNS), across * wide))
    whole = VPacker(children=[head, *rows], align="left", pad=_MARGIN, sep=2 * _GAP)
    whole.set_figure(figure)
    extent = whole.get_bbox(renderer)
    figure.set_size_inches(extent.width / _DPI, extent.height / _DPI)
    whole.set_offset((-extent.x0, -extent.y0))
    figure.add_artist(whole)
    figure.savefig(path, dpi=_DPI, format="png")


class _Words(TextArea):
    """A text that is measured once; boxes within boxes ask for its size again and again."""

    _extent: Bbox | None = None

    @override
    def get_bbox(self, renderer: RendererBase) -> Bbox:
        if self._extent is None:
            self._extent = super().get_bbox(renderer)
        return self._extent


class _Pen:
    """Turns texts into boxes; counts the letters that no font has."""

    def __init__(self, figure: Figure, renderer: RendererBase, texts: Iterable[str]) -> None:
        self._figure, self._renderer = figure, renderer
        self._hundred: dict[float, float] = {}  # size of letters -> pixels of a hundred of them
        letters = set(_visible("".join(set[str]().union(*texts))))
        self._families, self._lacking = find_families(letters)
        self._bold = letters_of(MONOSPACED, letters, weight="bold") | {" ", "."}  # few other fonts have a bold one
        self.not_shown = Counter[str]()

    def text(self, text: str, *, size: float = 8, colour: str = _INK, bold: bool = False, **more: Any) -> OffsetBox:

        visible = _visible(text)
        self.not_shown.update(letter for letter in visible if letter in self._lacking)
        shown = "".join(REPLACEMENT if letter in self._lacking else letter for letter in visible)
        style = {"family": self._families, "fontsize": size, "color": colour, "parse_math": False, **more}
        if bold and self._bold.issuperset(shown):
            style |= {"family": (MONOSPACED,), "weight": "bold"}
        return _Words(shown, textprops=style)

    def lines(self, pieces: Sequence[Piece], width: float, *, most: int) -> list[Artist]:
        from matplotlib.offsetbox import HPacker

        lines = wrap_pieces(pieces, self.columns(width), most=most)
        styles: dict[str, dict[str, Any]] = {
            "plain": {},
            "kept": {"colour": _KEPT, "bbox": {"boxstyle": "square,pad=0.05", "facecolor": _KEPT_BACK, "linewidth": 0}},
            "lost": {"colour": _LOST, "bbox": {"boxstyle": _struck, "edgecolor": _LOST, "linewidth": 0.8}},
        }
        return [
            HPacker(
                children=[self.text(piece.text, **styles[piece.state]) for piece in visual_order(line)],
                align="baseline",
                pad=0,
                sep=0,
            )
            for line in lines
        ]

    def paragraphs(self, texts: Sequence[str], width: float, *, most: int) -> OffsetBox:
        """Return texts without marks in one box, each of at most so many lines."""
        columns = self.columns(width)
        lines = [line for text in texts for line in wrap_pieces([Piece(text, "plain")], columns, most=most)]
        return self.text("\n".join("".join(piece.text for piece in line.pieces) for line in lines))

    def columns(self, width: float, *, size: float = 8) -> int:
        """Count the letters that fit a width in pixels."""
        return int(width / self.width(100, size=size) * 100)

    def width(self, columns: int, *, size: float = 8) -> float:
        """Measure so many letters in pixels."""
        if size not in self._hundred:
            box = self.text("0" * 100, size=size)
            box.set_figure(self._figure)
            self._hundred[size] = box.get_bbox(self._renderer).width
        return self._hundred[size] * columns / 100


def _head_box(pen: _Pen, sheet: Sheet, drawn: int, width: float) -> OffsetBox:

    texts = [f"{name}: {value}" for name, value in sheet.facts.items()] + list(sheet.notes)
    if len(sheet.cards) > drawn:
        texts.append(f"The first {drawn} of {len(sheet.cards)} are drawn; the HTML page shows all.")
    boxes: list[Artist] = [pen.text(cut_text(sheet.title, pen.columns(width, size=12)), size=12, bold=True)]
    boxes += [pen.paragraphs(texts, width, most=_FACT)] if texts else []
    if pen.not_shown:
        note = (
            f"{REPLACEMENT} stands for letters that no installed font has; the HTML page shows them where its reader "
            f"has a font: {describe_letters(pen.not_shown)}."
        )
        boxes.append(pen.paragraphs([note], width, most=2 * _FACT))
    return VPacker(children=boxes, align="left", pad=0, sep=2, width=width)


def _card_box(pen: _Pen, card: Card, width: float) -> OffsetBox:

    boxes: list[Artist] = [pen.text(cut_text(card.title, pen.columns(width, size=9)), size=9, bold=True)]
    for start in range(0, len(card.panels), _ACROSS):
        panels: list[Artist] = [_panel_box(pen, panel) for panel in card.panels[start : start + _ACROSS]]
        boxes.append(HPacker(children=panels, align="top", pad=0, sep=_GAP))
    boxes += [_passage_box(pen, passage, width) for passage in card.passages]
    facts = [f"{name}: {value}" for name, value in card.facts.items()]
    if len(facts) > _FACTS:
        facts[_FACTS - 1 :] = [f"... and {len(facts) - _FACTS + 1} more; the HTML page shows all."]
    boxes += [pen.paragraphs(facts, width, most=_FACT)] if facts else []
    return VPacker(children=boxes, align="left", pad=0, sep=5, width=width)


def _passage_box(pen: _Pen, passage: Passage, width: float) -> OffsetBox:

    caption = pen.text(cut_text(passage.caption, pen.columns(width, size=7)), size=7, colour=_DIM)
    return VPacker(children=[caption, *pen.lines(passage.pieces, width, most=_PASSAGE)], align="left", pad=0, sep=2)


def _panel_box(pen: _Pen, panel: Panel) -> OffsetBox:

    caption = pen.text(cut_text(panel.caption, pen.columns(_pixels(_SIDE), size=7)), size=7, colour=_DIM)
    if panel.image is not None:
        box: OffsetBox = OffsetImage(panel.image, zoom=_SIDE / max(panel.image.shape[:2]))
    else:
        box = DrawingArea(_SIDE, _SIDE)
        box.add_artist(Rectangle((1, 1), _SIDE - 2, _SIDE - 2, fill=False, edgecolor=_DIM, linestyle="--"))
        box.add_artist(Text(_SIDE / 2, _SIDE / 2, "none", color=_DIM, fontsize=8, ha="center", va="center"))
    return VPacker(children=[box, caption], align="left", pad=0, sep=2, width=_pixels(_SIDE))


def _struck(left: float, low: float, width: float, height: float, size: float) -> Outline:
    """Strike a text out: the frame of its box is a line through the middle."""
    return Outline([(left, low + height / 2), (left + width, low + height / 2)])


def _texts(sheet: Sheet, cards: Sequence[Card]) -> Iterable[str]:
    yield from (sheet.title, *sheet.facts, *sheet.facts.values(), *sheet.notes)
    for card in cards:
        yield from (card.title, *card.facts, *card.facts.values(), *(panel.caption for panel in card.panels))
        for passage in card.passages:
            yield from (passage.caption, *(piece.text for piece in passage.pieces))


def _visible(text: str) -> str:
    """Return what is seen of a text: no control characters, and nothing that only steers how letters are drawn."""
    return "".join(
        " " if letter != "\n" and unicodedata.category(letter) in {"Cc", "Zs"} else letter
        for letter in text
        if unicodedata.category(letter) != "Cf" and not unicodedata.name(letter, "").startswith("VARIATION SELECTOR")
    )


def _pixels(points: float) -> float:
    return points * _DPI / 72
