"""Texts with what is stored of them marked."""

import itertools
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError
from exmem.report.view.sheet import Piece
from exmem.tokens import TokenSet

__all__ = ["mark_ids", "mark_text", "mark_tokens"]

_MOST_IDS = 64


def mark_text(text: str, tokens: TokenSet, tokenizer: Any, max_text: int) -> tuple[Piece, ...]:
    """Mark what is stored of a text; what was cut off after `max_text` tokens, special ones included, is lost."""
    cut = tokenizer(text, truncation=True, max_length=max_text, return_offsets_mapping=True)
    ids = np.asarray(cut["input_ids"], np.int64)
    if len(tokens) and (tokens.positions[-1] >= len(ids) or (ids[tokens.positions] != tokens.values).any()):
        raise DataError(f"the stored tokens do not belong to the text {text[:60]!r}; give the data of this memory")
    held = set(tokens.positions.tolist())
    states: list[Literal["kept", "lost"]] = ["lost"] * len(text)
    for place, (start, stop) in enumerate(cut["offset_mapping"]):
        if place in held:
            states[start:stop] = ["kept"] * (stop - start)
    return _joined(
        Piece(letter, "plain" if letter.isspace() else state) for letter, state in zip(text, states, strict=True)
    )


def mark_tokens(tokens: TokenSet, tokenizer: Any) -> tuple[Piece, ...]:
    """Spell stored tokens where the text is not known, and count what is lost between them."""
    spelt = tokenizer.convert_ids_to_tokens(tokens.values.tolist())
    return _in_places(tokens.positions, [str(token) for token in spelt])


def mark_ids(tokens: TokenSet) -> tuple[Piece, ...]:
    """Show the first 64 stored numbers where nothing is known of them, and count what is lost between them."""
    shown = [str(value) for value in tokens.values[:_MOST_IDS].tolist()]
    pieces = _in_places(tokens.positions[:_MOST_IDS], shown)
    more = len(tokens) - _MOST_IDS
    return (*pieces, Piece(f" and {more:,} more", "plain")) if more > 0 else pieces


def _in_places(positions: NDArray[np.int64], texts: list[str]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    expected = 0
    for position, text in zip(positions.tolist(), texts, strict=True):
        if position > expected:
            pieces += [Piece(f"({position - expected} lost)", "plain"), Piece(" ", "plain")]
        pieces += [Piece(text, "kept"), Piece(" ", "plain")]
        expected = position + 1
    return tuple(pieces[:-1])


def _joined(letters: Iterable[Piece]) -> tuple[Piece, ...]:
    return tuple(
        Piece("".join(piece.text for piece in run), state)
        for state, run in itertools.groupby(letters, key=lambda piece: piece.state)
    )
