"""A memory as a map-style data set, beside other data sets."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
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

__all__ = ["ReplayDataset"]


class ReplayDataset(Dataset[tuple[Any, ...]]):
    """Exemplars 0..N-1 as tuples that `ConcatDataset`, shuffling and the default collation take.

    It shows what was committed when it was made; `refresh` shows what was committed since.

    Parameters
    ----------
    source : ExemplarMemory or place
        The memory, a folder, or a Zarr store.
    fields : sequence of str
        What a tuple holds, in this order: `image` (uint8, (3, H, W)), `text` (int32 ids, as long as the schema says,
        padding 0), `text_valid` (bool), `label` (int), `slot` (int), or the name of an extra field.
    fill : str
        What stands where patches were dropped; see `ReplayBatch.images`.
    transform : callable, optional
        Applied to each image.
    target_transform : callable, optional
        Applied to each label: `torch.tensor` beside data sets whose labels are tensors.

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
        self.fields, self._fill = tuple(fields), fill
        self.transform, self.target_transform = transform, target_transform
        FILLS[fill]  # an unknown one is told now, not in a worker
        memory = self._handle.memory
        restore = Restorer.of(memory)
        self._pipeline = Pipeline(restore, fill="drop")
        known = {"label", "slot", *memory.schema.extras}
        known |= {"image"} if restore.grid is not None else set()
        known |= {"text", "text_valid"} if "text" in memory.schema.modalities else set()
        if not self.fields or not all(isinstance(name, str) for name in self.fields):
            raise SchemaError(f"fields must be one or more names of {sorted(known)}, got {shown(fields)}")
        if fill == "class_mean":
            raise SchemaError("fill 'class_mean' looks at all exemplars; use mean, zero or thumbnail in a data set")
        if unknown := sorted(set(self.fields) - known):
            raise SchemaError(f"{memory.location}: no field {unknown}; choose of {sorted(known)}")
        self._slots, self._generation = memory.slots, memory.generation

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return several, read at once."""
        for index in indices:
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is outside 0..{len(self) - 1}")
        batch = self._pipeline(self._handle.read(self._slots[list(indices)], generation=self._generation))
        columns = [self._column(batch, name) for name in self.fields]
        return list(zip(*columns, strict=True))

    def refresh(self) -> None:
        """Show what is committed now; not in the middle of an epoch."""
        memory = self._handle.memory
        memory.refresh()
        self._slots, self._generation = memory.slots, memory.generation

    def _column(self, batch: ReplayBatch, name: str) -> Sequence[Any]:
        if name == "image":
            images = batch.images(self._fill)
            return [image if self.transform is None else self.transform(image) for image in images]
        if name in {"text", "text_valid"}:
            tokens = batch.tokens["text"]
            length = self._handle.memory.schema.modalities["text"].positions
            values = tokens.values if name == "text" else tokens.valid
            dense = torch.zeros(len(batch), length, dtype=values.dtype)
            rows, columns = tokens.valid.nonzero(as_tuple=True)
            dense[rows, tokens.positions[rows, columns]] = values[rows, columns]
            return list(dense)
        if name == "label":
            labels: list[int] = batch.labels.tolist()
            return labels if self.target_transform is None else [self.target_transform(label) for label in labels]
        if name == "slot":
            assert batch.slots is not None, "it was read from a memory"
            slots: list[int] = batch.slots.tolist()
            return slots
        return list(batch.extras[name])
