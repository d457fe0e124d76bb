"""From what is stored to what a model sees: restored, augmented, filled. The one place where this happens."""

import dataclasses
from collections.abc import Callable, Iterable

import torch

from exmem.errors import SchemaError
from exmem.memory import ExemplarMemory
from exmem.recipes import FILLS, FillContext, Restorer
from exmem.recipes.fills import class_means
from exmem.replay.augment import Augmentation
from exmem.replay.batch import ReplayBatch
from exmem.tokens.tensors import TensorBatch

__all__ = ["Pipeline"]


class Pipeline:
    """Restores a batch, augments it, and fills what was dropped, in this order.

    Parameters
    ----------
    restore : Restorer
        Of the memory, or of a bound recipe.
    fill : str, optional
        What becomes of dropped image tokens, a key of `FILLS`; the recipe's own when left out.
    augment : Augmentation, optional
        What the restored tokens go through; only where a generator is given.

    Raises
    ------
    SchemaError
        If there is no such fill.
    """

    def __init__(self, restore: Restorer, *, fill: str | None = None, augment: Augmentation | None = None) -> None:
        part, level = restore.recipe.fill, restore.recipe.level
        if level in {"hidden", "features"} and fill not in {None, "drop"}:
            raise SchemaError(f"fill {fill!r} has no effect: this memory holds {level}, no pixels; leave it out")
        if level == "features" and augment is not None:
            raise SchemaError("an augmentation has no effect: this memory holds features; leave it out")
        self.restore: Restorer = restore
        self.augment: Augmentation | None = augment
        self.fill: str = part.name if fill is None else fill
        self._fill = FILLS.make(self.fill, **(part.kwargs if fill is None else {}))
        length = restore.length
        self._context = None if length is None else FillContext(length=length, grid=restore.grid)
        self._known_of: int | None = None  # generation whose class means are known

    @property
    def needs_class_means(self) -> bool:
        """Whether the fill looks at all exemplars; `know` or `follow` must then come first."""
        return self.fill == "class_mean"

    def know(self, batches: Callable[[], Iterable[TensorBatch]]) -> None:
        """Find the mean colour of each class, where the fill needs it.

        Parameters
        ----------
        batches : callable
            Returns all exemplars in batches, as they are stored.
        """
        if self.needs_class_means and self._context is not None:
            means = class_means(self.restore(batch) for batch in batches())
            self._context = dataclasses.replace(self._context, class_means=means)

    def follow(self, memory: ExemplarMemory) -> None:
        """Know all exemplars of a memory, once in each of its generations; see `know`.

        Parameters
        ----------
        memory : ExemplarMemory
            The memory.
        """
        if self._known_of != memory.generation:
            self.know(lambda: stored_batches(memory))
            self._known_of = memory.generation

    def __call__(self, batch: TensorBatch, generator: torch.Generator | None = None) -> ReplayBatch:
        """Return what a model sees of stored exemplars.

        Parameters
        ----------
        batch : TensorBatch
            As they are stored.
        generator : torch.Generator, optional
            Source of randomness of the augmentation; nothing is augmented without it.

        Returns
        -------
        ReplayBatch
            Restored, augmented and filled.
        """
        restored = self.restore(batch)
        if self.augment is not None and generator is not None:
            restored = self.augment(restored, generator=generator)
        if self._context is not None and "image" in restored.tokens:
            restored = self._fill(restored, self._context)
        fields = {field.name: getattr(restored, field.name) for field in dataclasses.fields(TensorBatch)}
        return ReplayBatch(**fields, grid=self.restore.grid)


_READ_AT_ONCE = 256


def stored_batches(memory: ExemplarMemory) -> Iterable[TensorBatch]:
    """Read all exemplars as they are stored, some at a time."""
    slots = memory.slots
    for start in range(0, len(slots), _READ_AT_ONCE):
        yield TensorBatch.from_numpy(memory.read(slots[start : start + _READ_AT_ONCE]))
