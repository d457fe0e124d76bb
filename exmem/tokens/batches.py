"""Batches of exemplars, padded, as arrays."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import InvalidExemplarError
from exmem.tokens.checks import array_of, label_of, mapping_of, real_number, shown
from exmem.tokens.sets import Exemplar, TokenSet, exemplars_in

__all__ = ["PaddedTokens", "TokenBatch"]


@dataclasses.dataclass(frozen=True, eq=False)
class PaddedTokens:
    """One modality of a batch, padded to the longest set.

    Parameters
    ----------
    values : ndarray, shape (B, K, *shape)
        Values; zero where `valid` is False.
    positions : ndarray, shape (B, K), int64
        Positions in the dense sequence; 0 where `valid` is False.
    valid : ndarray, shape (B, K), bool
        True for a stored token, False for padding at the end of a row.

    Raises
    ------
    InvalidExemplarError
        If the shapes or dtypes do not go together or padding is not at the end.
    """

    values: NDArray[Any]
    positions: NDArray[np.int64]
    valid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for what in ("values", "positions", "valid"):
            object.__setattr__(self, what, array_of(getattr(self, what), what, error=InvalidExemplarError))
        shape = self.valid.shape
        if self.valid.ndim != 2 or self.positions.shape != shape or self.values.shape[:2] != shape:
            raise InvalidExemplarError(
                "expected values (B, K, ...), positions (B, K) and valid (B, K), got "
                f"{self.values.shape}, {self.positions.shape} and {shape}"
            )
        if self.valid.dtype != np.bool_ or self.positions.dtype.kind not in "iu":
            raise InvalidExemplarError(
                f"expected integer positions and bool valid, got {self.positions.dtype} and {self.valid.dtype}"
            )
        if np.any(self.valid[:, 1:] & ~self.valid[:, :-1]):
            raise InvalidExemplarError("valid must be True for the first tokens of a row and False for its padding")

    @classmethod
    def of(cls, sets: Sequence[TokenSet]) -> "PaddedTokens":
        """Pad token sets to the longest of them.

        Parameters
        ----------
        sets : sequence of TokenSet
            One or more sets of values of the same shape and dtype.

        Returns
        -------
        PaddedTokens
            One row each.

        Raises
        ------
        InvalidExemplarError
            If there is none, or their values do not look the same.
        """
        if not isinstance(sets, Sequence) or not all(isinstance(token_set, TokenSet) for token_set in sets):
            raise InvalidExemplarError(f"expected a sequence of TokenSets, got {shown(sets)}")
        looks = sorted({f"{token_set.values.dtype} of shape {token_set.values.shape[1:]}" for token_set in sets})
        if len(looks) != 1:
            raise InvalidExemplarError(f"expected token sets with values of one shape and dtype, got {looks}")
        counts = np.array([len(token_set.positions) for token_set in sets])
        valid = np.arange(counts.max())[None] < counts[:, None]
        values = np.zeros((*valid.shape, *sets[0].values.shape[1:]), sets[0].values.dtype)
        positions = np.zeros(valid.shape, np.int64)
        values[valid] = np.concatenate([token_set.values for token_set in sets])
        positions[valid] = np.concatenate([token_set.positions for token_set in sets])
        return cls(values, positions, valid)

    def row(self, index: int) -> TokenSet:
        """Return the tokens of one exemplar without padding.

        Parameters
        ----------
        index : int
            Row of the batch.
        """
        count = int(self.valid[index].sum())
        return TokenSet(self.positions[index, :count], self.values[index, :count])


@dataclasses.dataclass(frozen=True, eq=False)
class TokenBatch:
    """B exemplars, padded, as arrays.

    Parameters
    ----------
    tokens : mapping of str to PaddedTokens
        One entry per modality.
    labels : ndarray, shape (B,), int64
        Class of each exemplar.
    priorities : ndarray, shape (B,), float64
        Ranks within the class; the lowest goes first at eviction.
    extras : mapping of str to ndarray, shape (B, ...)
        One entry per extra field.
    slots : ndarray, shape (B,), int64, optional
        The slots that a memory read them from; None for exemplars of other origin.

    Raises
    ------
    InvalidExemplarError
        If the entries do not all hold B exemplars.
    """

    tokens: Mapping[str, PaddedTokens]
    labels: NDArray[np.int64]
    priorities: NDArray[np.float64] | None = None
    extras: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    slots: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        lengths: dict[str, int] = {}

        def column(values: object, what: str, kinds: str = "") -> NDArray[Any]:
            array = array_of(values, what, error=InvalidExemplarError)
            if array.ndim < 1 or (kinds and (array.ndim > 1 or (array.size and array.dtype.kind not in kinds))):
                raise InvalidExemplarError(
                    f"{what}: expected one number each, got {array.dtype} of shape {array.shape}"
                )
            lengths[what] = len(array)
            return array

        for name, block in mapping_of(self.tokens, "tokens", error=InvalidExemplarError).items():
            if not isinstance(block, PaddedTokens):
                raise InvalidExemplarError(f"tokens[{name!r}]: expected PaddedTokens, got {shown(block)}")
            lengths[f"tokens[{name!r}]"] = len(block.valid)
        labels = column(self.labels, "labels", "iu")
        count = len(labels)
        given = np.zeros(count, np.float64) if self.priorities is None else self.priorities
        extras = mapping_of(self.extras, "extras", error=InvalidExemplarError)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "priorities", column(given, "priorities", "iuf"))
        object.__setattr__(self, "extras", {name: column(extras[name], f"extras[{name!r}]") for name in extras})
        if self.slots is not None:
            object.__setattr__(self, "slots", column(self.slots, "slots", "iu"))
        wrong = {name: length for name, length in lengths.items() if length != count}
        if wrong:
            raise InvalidExemplarError(f"expected {count} exemplars in each entry (one per label), got {wrong}")

    @classmethod
    def of(cls, exemplars: Sequence[Exemplar]) -> "TokenBatch":
        """Pad exemplars into one batch, as a memory would return them from lossless codecs.

        Parameters
        ----------
        exemplars : sequence of Exemplar
            One or more, of the same schema.

        Returns
        -------
        TokenBatch
            One row each.

        Raises
        ------
        InvalidExemplarError
            If there is none, or they do not hold the same modalities and extra fields.
        """
        exemplars = exemplars_in(exemplars)
        if not exemplars or any(
            (one.tokens.keys(), one.extras.keys()) != (exemplars[0].tokens.keys(), exemplars[0].extras.keys())
            for one in exemplars
        ):
            raise InvalidExemplarError(
                f"expected one or more exemplars with the same modalities and extra fields, got {len(exemplars)}"
            )
        first = exemplars[0]
        return cls(
            {name: PaddedTokens.of([one.tokens[name] for one in exemplars]) for name in first.tokens},
            np.array([label_of(one.label, error=InvalidExemplarError) for one in exemplars], np.int64),
            np.array([real_number(one.priority, "priority", error=InvalidExemplarError) for one in exemplars]),
            {name: _stacked(name, [one.extras[name] for one in exemplars]) for name in first.extras},
        )

    def __len__(self) -> int:
        return len(self.labels)

    def exemplar(self, index: int) -> Exemplar:
        """Return one exemplar of the batch without padding.

        Parameters
        ----------
        index : int
            Row of the batch.
        """
        priorities = self.priorities
        return Exemplar(
            {name: block.row(index) for name, block in self.tokens.items()},
            label=int(self.labels[index]),
            priority=float(priorities[index]) if priorities is not None else 0.0,
            extras={name: values[index] for name, values in self.extras.items()},
        )

    def __iter__(self) -> Iterator[Exemplar]:
        return (self.exemplar(index) for index in range(len(self)))


def _stacked(name: str, values: Sequence[ArrayLike]) -> NDArray[Any]:
    arrays = [array_of(value, f"extra field {name!r}", error=InvalidExemplarError) for value in values]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise InvalidExemplarError(f"extra field {name!r}: expected values of one shape, got {shapes[:8]}")
    return np.stack(arrays)
