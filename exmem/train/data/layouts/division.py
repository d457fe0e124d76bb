"""A share of each class, held out for the test where data has no splits."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from exmem.errors import SchemaError
from exmem.tokens.checks import real_number, whole_number

__all__ = ["checked_ratio", "held_out"]

_T = TypeVar("_T")


def checked_ratio(layout: str, test_ratio: float, seed: int) -> float:
    """Return the share that is for the test; SchemaError if it or the seed cannot be."""
    whole_number(seed, f"layout {layout!r}: seed")
    ratio = real_number(test_ratio, f"layout {layout!r}: test_ratio")
    if not 0 < ratio < 1:
        raise SchemaError(f"layout {layout!r}: test_ratio must be above 0 and below 1, got {ratio:g}")
    return ratio


def held_out(members: Sequence[_T], seed: Sequence[int], test_ratio: float) -> tuple[list[_T], list[_T]]:
    """Divide the members of a class between training and test; one alone is for training, of more one is for the test.

    Members are drawn from in the order given, which should not depend on where they lie.
    """
    order = np.random.default_rng(seed).permutation(len(members)).tolist()
    count = 0 if len(members) == 1 else min(len(members) - 1, max(1, round(test_ratio * len(members))))
    return [members[at] for at in order[count:]], [members[at] for at in order[:count]]
