"""Conditional updates of entries, as TorchRL buffers offer them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.integrations.samples.fields import IMAGE
from exmem.integrations.samples.ring_memory import RingMemory
from exmem.integrations.torchrl.entries import EntryForm

__all__ = ["ConditionalUpdates"]


class ConditionalUpdates:
    """Part of a storage: what `ReplayBuffer.update_if_present` asks of it.

    Tensors that are not the image are changed where they are, and nothing else of an entry is made anew.
    """

    supports_conditional_update = True
    _form: EntryForm | None
    _ring: RingMemory

    if TYPE_CHECKING:  # the storage has them
        max_size: int
        device: Any
        get: Callable[[Any], Any]
        set: Callable[..., None]

        _tell: Callable[[NDArray[np.int64]], None]
        _changed: Callable[[], None]

    def _conditional_patch_leaf(self, key: Any) -> "_Column":
        """Return what patches of a tensor have to look like; it is read when it is indexed, which a buffer locks."""
        path = key if isinstance(key, tuple) else (key,)
        if self._form is None:
            raise RuntimeError("expected entries, got none so far; add some before they are updated")
        for known, leaf in self._form.leaves:
            if known == path:
                return _Column(self, path, (self.max_size, *leaf.shape), getattr(torch, leaf.dtype))
        raise KeyError(f"expected one of {[known for known, _ in self._form.leaves]}, got {key}")

    def _apply_conditional_patch(self, index: Tensor, patch: Mapping[Any, Tensor]) -> None:
        """Change some tensors of entries; those of one index by the last patch."""
        assert self._form is not None
        rows, first = np.unique(index.numpy(force=True).reshape(-1)[::-1], return_index=True)
        last = torch.from_numpy(len(index) - 1 - first)
        paths = {key if isinstance(key, tuple) else (key,): values.cpu()[last] for key, values in patch.items()}
        if not len(rows) or not paths:
            return
        entries = self.get(rows)
        for path, values in paths.items():
            entries.set(path, values.to(entries.device))
        if any(self._form.field(path) == IMAGE for path in paths):  # it is stored anew, and all else with it
            self.set(rows, entries, set_cursor=False)
            return
        fields = self._form.fields(entries)
        changed = {self._form.field(path): fields[self._form.field(path)] for path in paths}
        self._tell(self._ring.update(rows, changed))
        self._changed()


@dataclasses.dataclass(frozen=True)
class _Column:
    """A tensor of all entries, for those who ask how it looks, and index it: never more than that is read."""

    storage: ConditionalUpdates
    path: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        return torch.device(self.storage.device)

    def __getitem__(self, index: Any) -> Tensor:
        column: Tensor = self.storage.get(index)[self.path]
        return column
