"""A memory as a map-style data set, beside other data sets."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from exmem.errors import SchemaError
from exmem.memory import ExemplarMemory
from exmem.recipes import FILLS, Restorer
from exmem.replay.batch import ReplayBatch
from exmem.replay.handle import MemoryHandle
from exmem.replay.pipeline import Pipeline
from exmem.store import Place
from exmem.tokens.checks import shown
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["ReplayDataset"]


class ReplayDataset(Dataset[tuple[Any, ...]]):
    """Exemplars 0..N-1 as tuples that `ConcatDataset`, shuffling and the default collation take.

    It shows what was committed when it was made; `refresh` shows what was committed since.

    Parameters
    ----------
    source : ExemplarMemory or place
        The memory, a folder, or a Zarr store.
    fields : sequence of str
        What a tuple holds, in this order: `image` (uint8, (3, H, W)), `label` (int), `slot` (int), the name of an extra
        field, `text` (ids), or, where no pixels are stored, the name of what is: `hidden`, `features`. Such a modality
        comes as it is stored, of the shape (positions, ...), zeros where an exemplar has no token; where there is one
        position, without the first axis. `text_valid` and so on (bool, (positions,)) say where it has one.
    fill : str
        What stands where patches were dropped; see `ReplayBatch.images`.
    transform : callable, optional
        Applied to each image.
    target_transform : callable, optional
        Applied to each label: `torch.tensor` beside data sets whose labels are tensors.

    Attributes
    ----------
    labels : ndarray, shape (N,), int64
        Classes of the exemplars.
    generation : int
        That of the memory which it shows.

    Raises
    ------
    SchemaError
        If the memory has no such field.
    """

    def __init__(
        self,
        source: "ExemplarMemory | Place",
        *,
        fields: Sequence[str] = ("image", "label"),
        fill: str = "mean",
        transform: Callable[[Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        self._handle = MemoryHandle(source)
        self.fields: tuple[str, ...] = tuple(fields)
        self._fill = fill
        self.transform: Callable[[Tensor], Any] | None = transform
        self.target_transform: Callable[[int], Any] | None = target_transform
        FILLS[fill]  # an unknown one is told now, not in a worker
        memory = self._handle.memory
        restore = Restorer.of(memory)
        self._pipeline = Pipeline(restore, fill="drop")
        pixels, stored = restore.grid is not None, memory.schema.modalities
        self._positions = {name: stored[name].positions for name in stored if name == "text" or not pixels}
        known = {"label", "slot", *memory.schema.extras, *self._positions, *map(_valid, self._positions)}
        known |= {"image"} if pixels else set()
        if not self.fields or not all(isinstance(name, str) for name in self.fields):
            raise SchemaError(f"fields must be one or more names of {sorted(known)}, got {shown(fields)}")
        if fill == "class_mean":
            raise SchemaError("fill 'class_mean' looks at all exemplars; use mean, zero or thumbnail in a data set")
        if unknown := sorted(set(self.fields) - known):
            raise SchemaError(f"{memory.location}: no field {unknown}; choose of {sorted(known)}")
        if transform is not None and not (pixels and "image" in self.fields):
            raise SchemaError("transform has no effect: it changes images, and no field is one; leave it out")
        self._take(memory)

    def _take(self, memory: ExemplarMemory) -> None:
        self.generation: int = memory.generation
        self._slots = memory.slots
        self.labels: NDArray[np.int64] = memory.labels

    @property
    def memory(self) -> ExemplarMemory:
        """The memory as this process reads it."""
        return self._handle.memory

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return several, read at once."""
        for index in indices:
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        stored = self._handle.read(self._slots[list(indices)], generation=self.generation)
        batch = self._pipeline(stored)
        columns = [self._column(stored, batch, name) for name in self.fields]
        return list(zip(*columns, strict=True))

    def refresh(self) -> None:
        """Show what is committed now; not in the middle of an epoch."""
        memory = self._handle.memory
        memory.refresh()
        self._take(memory)

    def _column(self, stored: TensorBatch, batch: ReplayBatch, name: str) -> Sequence[Any]:
        for modality, positions in self._positions.items():
            if name in {modality, _valid(modality)}:
                return [*_dense(stored.tokens[modality], positions, values=name == modality)]
        if name == "image":
            images = batch.images(self._fill)
            return [image if self.transform is None else self.transform(image) for image in images]
        if name == "label":
            labels: list[int] = batch.labels.tolist()
            return labels if self.target_transform is None else [self.target_transform(label) for label in labels]
        if name == "slot":
            assert batch.slots is not None, "it was read from a memory"
            slots: list[int] = batch.slots.tolist()
            return slots
        return list(batch.extras[name])


def _valid(modality: str) -> str:
    return f"{modality}_valid"


def _dense(tokens: TokenTensors, positions: int, *, values: bool) -> Tensor:
    """Return values of tokens, or where they are, at their positions: (B, positions, *shape), (B, *shape) if one."""
    held = tokens.values if values else tokens.valid
    dense = torch.zeros(len(held), positions, *held.shape[2:], dtype=held.dtype)
    rows, columns = tokens.valid.nonzero(as_tuple=True)
    dense[rows, tokens.positions[rows, columns]] = held[rows, columns]
    return dense[:, 0] if positions == 1 and values else dense
