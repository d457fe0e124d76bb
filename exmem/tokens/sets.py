"""Exemplars as arrays."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import InvalidExemplarError
from exmem.tokens.checks import MOST, array_of, mapping_of, shown

__all__ = ["Exemplar", "TokenSet", "exemplars_in"]


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class TokenSet:
    """The tokens of one modality that were kept.

    Parameters
    ----------
    positions : array-like, shape (K,), integer
        Indices into the dense sequence, strictly increasing.
    values : array-like, shape (K, *shape)
        One value per position.

    Raises
    ------
    InvalidExemplarError
        If the positions are not strictly increasing integers of 0 or more, or the lengths differ.
    """

    positions: NDArray[np.int64]
    values: NDArray[Any]

    def __init__(self, positions: ArrayLike, values: ArrayLike) -> None:
        positions = array_of(positions, "positions", error=InvalidExemplarError)
        if positions.size == 0:
            positions = positions.astype(np.int64)
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise InvalidExemplarError(
                f"positions must be a 1-D integer array, got shape {positions.shape}, dtype {positions.dtype}"
            )
        if positions.dtype.kind == "u" and positions.size and int(positions.max()) > MOST:
            raise InvalidExemplarError(f"positions must be at most {MOST}, got {positions.max()}")
        positions = positions.astype(np.int64)
        check_increasing(positions, "positions")
        values = array_of(values, "values", error=InvalidExemplarError)
        if values.ndim < 1 or len(values) != len(positions):
            raise InvalidExemplarError(
                f"expected one value per position: {len(positions)} positions, values of shape {values.shape}"
            )
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.positions)

    @classmethod
    def dense(cls, values: ArrayLike) -> "TokenSet":
        """Keep every token of a dense sequence.

        Parameters
        ----------
        values : array-like, shape (L, *shape)
            All tokens in order.

        Returns
        -------
        TokenSet
            Positions 0..L-1.

        Raises
        ------
        InvalidExemplarError
            If there is no axis of tokens.
        """
        array = array_of(values, "values", error=InvalidExemplarError)
        if array.ndim < 1:
            raise InvalidExemplarError(f"expected values of shape (L, ...), got {shown(values)}")
        return cls(np.arange(len(array)), array)

    @classmethod
    def kept(cls, values: ArrayLike, keep: ArrayLike) -> "TokenSet":
        """Keep the tokens of a dense sequence where `keep` is True.

        Parameters
        ----------
        values : array-like, shape (L, *shape)
            All tokens in order.
        keep : array-like, shape (L,), bool
            True where the token is kept.

        Returns
        -------
        TokenSet
            The kept tokens in order.

        Raises
        ------
        InvalidExemplarError
            If `keep` is not a bool array of length L.
        """
        array = array_of(values, "values", error=InvalidExemplarError)
        flags = array_of(keep, "keep", error=InvalidExemplarError)
        if flags.dtype != np.bool_ or flags.shape != array.shape[:1]:
            raise InvalidExemplarError(
                f"keep must be bool of shape {array.shape[:1]}, got {flags.dtype} of shape {flags.shape}"
            )
        positions = np.flatnonzero(flags)
        return cls(positions, array[positions])


def check_increasing(positions: NDArray[np.int64], what: str) -> None:
    """Raise InvalidExemplarError, which says `what`, if a position is negative, repeated or out of order."""
    if len(positions) == 0:
        return
    if positions[0] < 0:
        raise InvalidExemplarError(f"{what} must be 0 or more, got {positions[0]}")
    bad = np.flatnonzero(np.diff(positions) <= 0)
    if len(bad):
        at = int(bad[0])
        raise InvalidExemplarError(
            f"{what} must be strictly increasing, got {positions[at]} before {positions[at + 1]}; "
            "sort the tokens by position and drop duplicates"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Exemplar:
    """One training example to be stored.

    Parameters
    ----------
    tokens : mapping of str to TokenSet
        One set per modality of the schema.
    label : int
        Class of the exemplar.
    priority : float
        Rank within its class: the lowest goes first at eviction. NaN is refused when it is added.
    extras : mapping of str to array-like
        One value per extra field of the schema.

    Raises
    ------
    InvalidExemplarError
        If `tokens` or `extras` is no mapping; all else is looked at when it is added.
    """

    tokens: Mapping[str, TokenSet]
    label: int
    priority: float = 0.0
    extras: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        mapping_of(self.tokens, "tokens of an exemplar", error=InvalidExemplarError)
        mapping_of(self.extras, "extras of an exemplar", error=InvalidExemplarError)


def exemplars_in(exemplars: Iterable[Exemplar]) -> list[Exemplar]:
    """Return what a caller gave as exemplars, as a list; InvalidExemplarError if it is something else."""
    if isinstance(exemplars, Exemplar):
        raise InvalidExemplarError("expected a sequence of exemplars, got an Exemplar; put it in a list")
    try:
        if isinstance(exemplars, str | bytes | Mapping | np.ndarray | np.generic):  # an empty one has no wrong exemplar
            raise TypeError
        given = iter(exemplars)
    except TypeError as error:
        raise InvalidExemplarError(f"expected a sequence of exemplars, got {shown(exemplars)}") from error
    listed = [*given]
    for index, one in enumerate(listed):
        if not isinstance(one, Exemplar):
            raise InvalidExemplarError(f"exemplar {index}: expected an Exemplar, got {type(one).__name__}")
    return listed
