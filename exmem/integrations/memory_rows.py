"""Exemplars one by one, as plain rows: what libraries take whose data sets yield examples."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from exmem.memory import ExemplarMemory
from exmem.recipes import Restorer
from exmem.replay import SAMPLERS, ReplayDataset, Sampler
from exmem.store import Place

__all__ = ["MemoryRows"]


class MemoryRows:
    """Exemplars 0..N-1 of a memory as it was committed when this was made; a pickle of it reopens the memory.

    `fields` and `fill` are those of `ReplayDataset`, which reads. A row is a dict of them in NumPy's and Python's own
    types; an image is (H, W, 3), uint8.
    """

    def __init__(self, source: "ExemplarMemory | Place", *, fields: Sequence[str], fill: str = "mean") -> None:
        self._rows = ReplayDataset(source, fields=fields, fill=fill)
        memory = self._rows.memory
        self.schema, self.location = memory.schema, memory.location
        self.fields, self.has_pixels = tuple(fields), Restorer.of(memory).grid is not None

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes of all exemplars."""
        return self._rows.labels

    @property
    def generation(self) -> int:
        """The memory's, when this was made."""
        return self._rows.generation

    def __len__(self) -> int:
        return len(self._rows)

    def drawn(self, number: int, *, sampler: str, seed: int) -> NDArray[np.int64]:
        """Return the rows of a pass, shape (N,), in the order in which they are replayed."""
        draw: Sampler = SAMPLERS[sampler]
        return draw(np.arange(len(self)), self.labels, length=len(self), seed=seed, number=number)

    def read(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Read rows, all at once."""
        wanted = [int(index) for index in indices]
        read = self._rows.__getitems__(wanted) if wanted else []
        return [{name: self._plain(name, value) for name, value in zip(self.fields, row, strict=True)} for row in read]

    def _plain(self, field: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if field == "image" and self.has_pixels:
            value = value.permute(1, 2, 0).contiguous()
        return value.numpy() if value.ndim else value.item()
