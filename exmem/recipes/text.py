"""Texts alone: for a fiftieth of the bytes of a picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.errors import SchemaError
from exmem.recipes.base import exemplars_of
from exmem.tokens import Exemplar, Schema
from exmem.tokens.tensors import TensorBatch

__all__ = ["TextOnly"]


class TextOnly:
    """The whole text and nothing of the picture.

    Parameters
    ----------
    backbone : Backbone
        The backbone that will see the exemplars.

    Raises
    ------
    SchemaError
        If it sees no text.
    """

    passes = 0

    def __init__(self, backbone: Backbone) -> None:
        if "text" not in backbone.token_specs():
            raise SchemaError("text exemplars need a learner that sees text; choose another recipe or backbone")
        self.backbone = backbone

    def schema(self) -> Schema:
        """Return the text tokens."""
        return Schema({"text": self.backbone.token_specs()["text"]})

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Make exemplars; see `Recipe.make`."""
        words = self.backbone.tokenize(texts)
        return exemplars_of([{"text": words.row(row)} for row in range(len(texts))], labels, priorities)

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Return the batch as it is; see `Recipe.restore`."""
        return batch
