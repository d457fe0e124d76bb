"""The contract of a recipe."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exmem.tensors import TensorBatch
from exmem.tokens import Exemplar, Schema

__all__ = ["Recipe"]


class Recipe(Protocol):
    """How an exemplar is made; `passes` of a picture through the backbone that takes."""

    passes: int

    def schema(self) -> Schema:
        """Return the schema of its exemplars."""

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Make exemplars of pictures (B, image_size, image_size, 3) and texts."""

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Turn stored exemplars into the tokens of the backbone."""
