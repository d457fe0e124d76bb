"""Exemplars that are encoded already: measured once, and stored as they are."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError
from exmem.store import Rows, Store
from exmem.tokens import Exemplar, TokenBatch
from exmem.tokens.checks import floats_of
from exmem.tokens.sets import exemplars_in

__all__ = ["EncodedExemplars", "encoded_rows"]


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedExemplars:
    """What `memory.encode` made of exemplars; `plan_add` and `add` take them in place of exemplars.

    Parameters
    ----------
    rows : Rows
        Payloads and records, as the store holds them.
    """

    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each, (N,): payloads, checksums, index entries and its row before compression."""
        return self.rows.sizes

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "EncodedExemplars":
        """Return some of them, in this order.

        Parameters
        ----------
        indices : sequence of int
            Which, from 0.
        """
        return EncodedExemplars(self.rows.take(indices))

    def ranked(self, priorities: Sequence[float] | NDArray[np.float64]) -> "EncodedExemplars":
        """Return the same exemplars with other priorities; nothing is encoded again.

        Parameters
        ----------
        priorities : sequence of float
            One each; higher stays longer.

        Raises
        ------
        InvalidExemplarError
            If they are not as many numbers as there are exemplars, or one is NaN.
        """
        given = floats_of(priorities, "priorities", error=InvalidExemplarError)
        if given.shape != (len(self),):
            raise InvalidExemplarError(f"priorities: expected shape {(len(self),)}, got {given.shape}")
        return EncodedExemplars(self.rows.with_priorities(given))

    def joined(self, other: "EncodedExemplars") -> "EncodedExemplars":
        """Return these and others of the same memory behind them.

        Parameters
        ----------
        other : EncodedExemplars
            What comes behind.

        Raises
        ------
        InvalidExemplarError
            If they were encoded for a memory of another schema.
        """
        if self.rows.layout.schema != other.rows.layout.schema:
            raise InvalidExemplarError("these exemplars were encoded for memories of different schemas; add each apart")
        return EncodedExemplars(self.rows.joined(other.rows))


def encoded_rows(store: Store, exemplars: Sequence[Exemplar] | TokenBatch | EncodedExemplars) -> Rows:
    """Return exemplars as a store holds them, encoded if they are not yet."""
    if not isinstance(exemplars, EncodedExemplars):
        batch = exemplars if isinstance(exemplars, TokenBatch) else exemplars_in(exemplars)
        return store.encode(batch)
    if exemplars.rows.layout.schema != store.layout.schema:
        raise InvalidExemplarError("these exemplars were encoded for a memory of another schema; encode them for this")
    return dataclasses.replace(exemplars.rows, layout=store.layout)
