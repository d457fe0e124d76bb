"""Fills: what becomes of dropped tokens at replay."""

from collections.abc import Callable

from exmem.errors import SchemaError
from exmem.tensors import TokenTensors

__all__ = ["FILLS", "Fill", "fill_drop", "fill_zero", "get_fill"]

Fill = Callable[[TokenTensors, int], TokenTensors]


def fill_drop(tokens: TokenTensors, length: int) -> TokenTensors:
    """Leave dropped tokens out: only kept tokens enter the transformer, with their true positions.

    Parameters
    ----------
    tokens : TokenTensors
        Kept tokens.
    length : int
        Length L of the dense sequence; not used.

    Returns
    -------
    TokenTensors
        The same tokens.
    """
    return tokens


def fill_zero(tokens: TokenTensors, length: int) -> TokenTensors:
    """Put zeros (black) where tokens were dropped: the sequence is dense again.

    Parameters
    ----------
    tokens : TokenTensors
        Kept tokens.
    length : int
        Length L of the dense sequence.

    Returns
    -------
    TokenTensors
        L tokens per row, all of them kept.
    """
    rows, places = tokens.keep.nonzero(as_tuple=True)
    values = tokens.values.new_zeros(len(tokens.keep), length, *tokens.values.shape[2:])
    values[rows, tokens.positions[rows, places]] = tokens.values[rows, places]
    return TokenTensors.dense(values)


FILLS: dict[str, Fill] = {"drop": fill_drop, "zero": fill_zero}


def get_fill(name: str) -> Fill:
    """Find a fill by name.

    Parameters
    ----------
    name : str
        A key of `FILLS`.

    Returns
    -------
    callable
        Takes kept tokens and the dense length L.

    Raises
    ------
    SchemaError
        If the name is unknown.
    """
    if name not in FILLS:
        raise SchemaError(f"unknown fill {name!r}; choose one of {sorted(FILLS)}")
    return FILLS[name]
