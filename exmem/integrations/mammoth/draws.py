"""How exemplars are drawn from a buffer for mammoth: at random, balanced, by number, all, one by one."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from exmem.errors import SchemaError
from exmem.integrations.mammoth.memory import PlacedMemory
from exmem.integrations.mammoth.tensors import Transform, transformed
from exmem.integrations.samples.fields import IMAGE

__all__ = ["NAMES", "Draws"]

NAMES = ("examples", "labels", "logits", "task_labels", "true_labels")


class Draws:
    """What a buffer gives out. NumPy's global generator decides, as in mammoth, which seeds it."""

    _held: PlacedMemory
    device: "torch.device | str"

    def _begin(self) -> None:
        self._has_indexes = False
        self._dl_transform: Transform = None

    @property
    def used_attributes(self) -> list[str]:
        """Names of what the exemplars have."""
        if not self._held.fields.exists:
            return []
        has = {"examples", *self._held.names, *(["labels"] if self._held.has_labels else [])}
        return [name for name in NAMES if name in has]

    def _settle(self) -> None:
        """Let in what waits, unless indexes are out that would no longer hold."""
        if not self._has_indexes:
            self._held.offer()

    def get_data(  # noqa: PLR0913  # mammoth's arguments
        self,
        size: int,
        transform: Transform = None,
        return_index: bool = False,
        device: "torch.device | str | None" = None,
        mask_task_out: int | None = None,
        cpt: int | None = None,
        return_not_aug: bool = False,
        not_aug_transform: Transform = None,
        force_indexes: Any = None,
    ) -> tuple[Tensor, ...]:
        """Draw exemplars at random, each at most once.

        Parameters
        ----------
        size : int
            How many; all, where there are fewer.
        transform : callable, optional
            Applied to the images, as mammoth does.
        return_index : bool
            Whether their numbers come first.
        device : str or torch.device, optional
            Where they go; the buffer's when left out.
        mask_task_out : int, optional
            A task of which none is drawn.
        cpt : int, optional
            Classes of a task, for the mask where there are no task labels.
        return_not_aug : bool
            Whether the images without `transform` come before those with it.
        not_aug_transform : callable, optional
            Applied to those.
        force_indexes : sequence of int, optional
            These instead of random ones; with a mask numbers among those that it leaves.

        Returns
        -------
        tuple of Tensor
            Examples, labels, logits, task labels, true labels: those that were given.

        Raises
        ------
        SchemaError
            If nothing is held, or the mask needs what is not there.
        """
        if return_index:
            self._settle()
        self._check_holds()
        left = np.arange(len(self)) if mask_task_out is None else self._others(mask_task_out, cpt)
        if force_indexes is not None:
            places = left[np.asarray(force_indexes)]
        else:
            places = left[np.random.choice(len(left), size=min(size, len(left)), replace=False)]  # noqa: NPY002  # mammoth seeds it
        target = self.device if device is None else device
        images, *others = self._taken(places, target)
        drawn = (transformed(images, transform), *others)
        if return_not_aug:
            drawn = (transformed(images, not_aug_transform), *drawn)
        if return_index:
            self._has_indexes = True
            drawn = (torch.from_numpy(places).to(target), *drawn)
        return drawn

    def _check_holds(self) -> None:
        if not len(self):
            raise SchemaError("the buffer is empty; add_data() first, or ask is_empty()")

    def _others(self, task: int, cpt: int | None) -> NDArray[np.int64]:
        """Return the places of exemplars that are not of a task."""
        if "task_labels" in self.used_attributes:
            tasks = self._held.read(np.arange(len(self)), "cpu", names=["task_labels"])["task_labels"].numpy()
        elif cpt is None or "labels" not in self.used_attributes:
            raise SchemaError("mask_task_out needs task labels, or labels and cpt; give them")
        else:
            tasks = self._held.labels // cpt
        return np.flatnonzero(tasks != task)

    def _taken(
        self, places: NDArray[np.int64], device: "torch.device | str", attributes: Sequence[str] | None = None
    ) -> list[Tensor]:
        """Return attributes of exemplars, all that they have unless some are named."""
        names = [_FIELD.get(name, name) for name in (self.used_attributes if attributes is None else attributes)]
        values = self._held.read(places, device, names=names)
        return [values[name] for name in names]

    def get_balanced_data(self, size: int, transform: Transform = None, n_classes: int = -1) -> tuple[Tensor, ...]:
        """Draw exemplars at random, as many of each of some classes.

        Parameters
        ----------
        size : int
            How many; all, where there are fewer.
        transform : callable, optional
            Applied to the images.
        n_classes : int
            Classes to draw from; all when -1. Fewer, where not so many have enough exemplars; any, where none has.

        Returns
        -------
        tuple of Tensor
            As `get_data`.
        """
        self._check_holds()
        size = min(size, len(self))
        classes, counts = np.unique(self._held.labels, return_counts=True)
        wanted = len(classes) if n_classes == -1 else min(n_classes, len(classes))
        while wanted and np.sum(counts * wanted >= size) < wanted:
            wanted = int(np.sum(counts * wanted >= size))
        if not wanted:
            return self.get_data(size, transform)
        enough = np.random.permutation(classes[counts * wanted >= size])[:wanted]  # noqa: NPY002  # mammoth seeds it
        places = [
            np.random.choice(  # noqa: NPY002
                np.flatnonzero(self._held.labels == label), size // wanted + (rank < size % wanted), replace=False
            )
            for rank, label in enumerate(enough)
        ]
        return self.get_data(size, transform, force_indexes=np.concatenate(places))

    def get_data_by_index(
        self, indexes: Any, transform: Transform = None, device: "torch.device | str | None" = None
    ) -> tuple[Tensor, ...]:
        """Return exemplars by their numbers.

        Parameters
        ----------
        indexes : array-like, shape (B,), integer or bool
            Their numbers.
        transform : callable, optional
            Applied to the images.
        device : str or torch.device, optional
            Where they go; the buffer's when left out.

        Returns
        -------
        tuple of Tensor
            As `get_data`.
        """
        self._check_holds()
        images, *others = self._taken(
            np.arange(len(self))[np.asarray(indexes)], self.device if device is None else device
        )
        return (transformed(images, transform), *others)

    def get_all_data(
        self, transform: Transform = None, device: "torch.device | str | None" = None
    ) -> tuple[Tensor, ...]:
        """Return all exemplars, by age.

        Parameters
        ----------
        transform : callable, optional
            As for `get_data_by_index`.
        device : str or torch.device, optional
            Where they go; the buffer's own when left out.

        Returns
        -------
        tuple of Tensor
            As `get_data_by_index`.
        """
        self._settle()
        return self.get_data_by_index(np.arange(len(self)), transform, device)

    def get_dataloader(
        self,
        args: Any,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Transform = None,
        sampler: Any = None,
    ) -> "DataLoader[list[Tensor]]":
        """Return a loader of all exemplars, in this process.

        Parameters
        ----------
        args : Namespace
            mammoth's arguments; its `seed`, if it has one, decides the order.
        batch_size : int
            Exemplars of a batch.
        shuffle : bool
            Whether they come in another order each time.
        drop_last : bool
            Whether a smaller last batch is left out.
        transform : callable, optional
            As for `get_data_by_index`.
        sampler : Sampler, optional
            Of torch, in the place of `shuffle`.

        Returns
        -------
        DataLoader
            Its batches are lists of tensors.
        """
        self._settle()
        self._dl_transform = transform
        seed = getattr(args, "seed", None)
        return DataLoader(
            self,  # type: ignore[arg-type]  # it has what a map-style data set needs
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            sampler=sampler,
            generator=None if seed is None else torch.Generator().manual_seed(seed),
        )

    def __len__(self) -> int:
        return len(self._held.slots)

    def __iter__(self) -> Iterator[list[Tensor]]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, index: int) -> list[Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"exemplar {index} of {len(self)}")
        return [values[0] for values in self.get_data_by_index([index], self._dl_transform)]


_FIELD = {"examples": IMAGE}
