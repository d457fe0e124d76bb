"""Texts in lines of so many columns, and what is left of those that are too long."""

import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from exmem.report.view.sheet import Piece

__all__ = ["Line", "count_columns", "cut_text", "visual_order", "wrap_pieces"]

_WIDE = frozenset("WF")  # East Asian letters that take two columns
_RIGHT_TO_LEFT, _LEFT_TO_RIGHT = frozenset({"R", "AL"}), frozenset({"L", "EN"})  # classes of Unicode
_LONG_WORD = 30  # letters; what is longer on average has no spaces between words


class Line(NamedTuple):
    """A line: its pieces, and how many letters of the whole text stand before its end."""

    pieces: tuple[Piece, ...]
    stop: int


def count_columns(text: str) -> int:
    """Count the columns of a text in a font of one width; wide letters take two, marks upon letters none."""
    return sum(
        2 if unicodedata.east_asian_width(letter) in _WIDE else int(not unicodedata.combining(letter))
        for letter in text
    )


def cut_text(text: str, columns: int) -> str:
    """Return a text of at most so many columns; one that is cut ends in dots."""
    if count_columns(text) <= columns:
        return text
    stops = itertools.accumulate(map(count_columns, text))
    return text[: sum(stop <= columns - 3 for stop in stops)] + "..."


def wrap_pieces(pieces: Sequence[Piece], columns: int, *, most: int) -> tuple[Line, ...]:
    """Break a text into lines; one of more than `most` ends in a line that counts what is left out."""
    lines, row, used, stop = list[Line](), list[Piece](), 0, 0
    for piece in pieces:
        for text in re.findall(rf"\s+|\S{{1,{max(1, columns // 2)}}}", piece.text):  # of wide letters, a whole line
            blank = text.isspace()
            if row and not blank and used + count_columns(text) > columns:
                lines.append(Line(tuple(row), stop))
                row, used = [], 0
            if row or not blank:
                row.append(Piece(" ", "plain") if blank else Piece(text, piece.state))
                used += count_columns(row[-1].text)
            stop += len(text)
    if row:
        lines.append(Line(tuple(row), stop))
    lines = [Line(_joined(line.pieces), line.stop) for line in lines]
    if len(lines) <= most:
        return tuple(lines)
    whole = "".join(piece.text for piece in pieces)
    left_out = Piece(f"... and {_amount(whole[lines[most - 2].stop :])}", "plain")
    return (*lines[: most - 1], Line((left_out,), len(whole)))


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Join what stands in one state, with the blanks between; words that run to the left stay by themselves."""
    joined = list[Piece]()
    for piece in pieces:
        if len(joined) > 1 and joined[-1].text == " " and _like(joined[-2], piece):
            joined[-2:] = [Piece(f"{joined[-2].text} {piece.text}", piece.state)]
        elif joined and _like(joined[-1], piece):
            joined[-1] = Piece(joined[-1].text + piece.text, piece.state)
        else:
            joined.append(piece)
    return tuple(joined)


def _like(first: Piece, second: Piece) -> bool:
    return first.state == second.state and not _directions(first.text + second.text) & _RIGHT_TO_LEFT


def visual_order(line: Line) -> tuple[Piece, ...]:
    """Return the pieces of a line from left to right; those of a script that runs to the left are turned round."""
    ordered, turned, between = list[Piece](), list[Piece](), list[Piece]()
    for piece in line.pieces:
        directions = _directions(piece.text)
        if directions & _RIGHT_TO_LEFT:
            turned = [piece, *reversed(between), *turned]
            between = []
        elif turned and not directions & _LEFT_TO_RIGHT:
            between.append(piece)  # blanks and marks: they turn with what follows, if that runs to the left
        else:
            ordered += [*turned, *between, piece]
            turned, between = [], []
    return (*ordered, *turned, *between)


def _directions(text: str) -> set[str]:
    return {unicodedata.bidirectional(letter) for letter in text}


def _amount(text: str) -> str:
    """Count words, or letters of what has no spaces between words."""
    words, letters = len(text.split()), sum(not letter.isspace() for letter in text)
    if letters > _LONG_WORD * words:
        return f"{letters:,} more letters"
    return f"{words:,} more word{'s' if words > 1 else ''}"
