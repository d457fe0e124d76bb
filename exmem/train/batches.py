"""Batches of data for a backbone, the next one read while a model runs."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.tokens import TokenBatch
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText

__all__ = ["DataTokens", "ahead", "batches", "images_of"]

_Thing = TypeVar("_Thing")
Rows = NDArray[np.int64]


def images_of(backbone: Backbone, data: ImageText, rows: Rows) -> NDArray[np.uint8]:
    """Return images of rows of the data as a backbone takes them; where it sees none, white ones that take no room."""
    if "image" in backbone.token_specs():
        return data.images(rows, backbone.image_sides)
    return np.broadcast_to(np.full(1, 255, np.uint8), (len(rows), *backbone.image_sides, 3))


class DataTokens:
    """Reads the tokens of rows of the data, labels included; it runs no model."""

    def __init__(self, backbone: Backbone, data: ImageText) -> None:
        self._backbone, self._data = backbone, data

    def __call__(self, rows: Rows, /) -> TensorBatch:
        """Return the tokens of some rows."""
        texts = [self._data.texts[row] for row in rows.tolist()]
        tokens = self._backbone.tokens(images_of(self._backbone, self._data, rows), texts)
        return TensorBatch.from_numpy(TokenBatch(tokens.tokens, self._data.labels[rows]))


def batches(tokens: Callable[[Rows], TensorBatch], parts: Iterable[Rows]) -> Iterator[tuple[Rows, TensorBatch]]:
    """Yield parts of the rows of the data with their tokens; what runs no model is one part ahead."""
    read = ((part, tokens(part)) for part in parts)
    return ahead(read) if isinstance(tokens, DataTokens) else read


def ahead(things: Iterable[_Thing]) -> Iterator[_Thing]:
    """Yield things while the next one is made in a thread; they come, and fail, as they would without it."""
    end, iterator = object(), iter(things)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, end)
        while (thing := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)
            yield thing  # type: ignore[misc]
