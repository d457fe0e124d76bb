"""What a sheet shows, before it is drawn as an image or written as a page."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Card", "Panel", "Passage", "Piece", "Sheet", "State"]


State = Literal["kept", "lost", "plain"]
"""What a piece of text is on a sheet: stored, dropped, or neither."""


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """An image of a card.

    Parameters
    ----------
    caption : str
        What it is.
    image : ndarray, shape (H, W, 3), uint8, or None
        None where this exemplar has none, though others of the sheet have.
    """

    caption: str
    image: NDArray[np.uint8] | None


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of a text.

    Parameters
    ----------
    text : str
        The piece.
    state : {"kept", "lost", "plain"}
        Whether it is stored; plain for what is neither.
    """

    text: str
    state: State


@dataclasses.dataclass(frozen=True)
class Passage:
    """A text of a card.

    Parameters
    ----------
    caption : str
        What it is.
    pieces : tuple of Piece
        All of it in reading order, spaces included.
    """

    caption: str
    pieces: tuple[Piece, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Card:
    """One exemplar, or one way to choose its tokens.

    Parameters
    ----------
    title : str
        Name of it.
    facts : mapping of str to str
        What is told in words and numbers: name -> value.
    panels : tuple of Panel
        Images; every card of a sheet has the same captions in the same order.
    passages : tuple of Passage
        Texts.
    measures : mapping of str to object
        What is told in plain numbers, for programs: name -> value.
    """

    title: str
    facts: Mapping[str, str]
    panels: tuple[Panel, ...] = ()
    passages: tuple[Passage, ...] = ()
    measures: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Sheet:
    """All cards, and what is said once of all of them.

    Parameters
    ----------
    title : str
        Name of it.
    facts : mapping of str to str
        What is told of the whole: name -> value.
    notes : tuple of str
        What is not shown and why, and how to read the rest.
    cards : tuple of Card
        The cards.
    """

    title: str
    facts: Mapping[str, str]
    notes: tuple[str, ...]
    cards: tuple[Card, ...]
