"""Texts in lines of so many columns, and what is left of those that are too long."""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from exmem.report.view.sheet import Piece, State

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
    """Return a text as one line of at most so many columns; one that is cut ends in dots."""
    text = " ".join(text.split())
    if count_columns(text) <= columns:
        return text
    stops = itertools.accumulate(map(count_columns, text))
    return text[: sum(stop <= columns - 3 for stop in stops)] + "..."


def wrap_pieces(pieces: Sequence[Piece], columns: int, *, most: int) -> tuple[Line, ...]:
    """Break a text into lines; one of more than `most` ends in a line that counts what is left out."""
    lines, row, used, stop = list[Line](), list[Piece](), 0, 0
    for text, state in _tokens(pieces, max(1, columns // 2)):  # half a line of columns is a whole one of wide letters
        blank = text.isspace()
        if row and not blank and used + count_columns(text) > columns:
            lines.append(Line(_joined(row), stop))
            row, used = [], 0
        if len(lines) == most:
            whole = "".join(piece.text for piece in pieces)
            left_out = Piece(f"... and {_amount(whole[lines[most - 2].stop :])}", "plain")
            return (*lines[: most - 1], Line((left_out,), len(whole)))
        if row or not blank:
            row.append(Piece(" ", "plain") if blank else Piece(text, state))
            used += count_columns(row[-1].text)
        stop += len(text)
    return (*lines, Line(_joined(row), stop)) if row else tuple(lines)


def _tokens(pieces: Sequence[Piece], longest: int) -> Iterator[tuple[str, State]]:
    """Yield blanks and words, these in lengths that fit."""
    for piece in pieces:
        for token in re.finditer(rf"\s+|\S{{1,{longest}}}", piece.text):
            yield token[0], piece.state


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Join what stands in one state, with the blanks between, not at the end; words that run to the left stay apart."""
    joined = list[Piece]()
    for piece in pieces[: len(pieces) - (pieces[-1].text == " ")]:
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
