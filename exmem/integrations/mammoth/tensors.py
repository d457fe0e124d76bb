"""Tensors that a buffer hands out: what is written into them is written back, or refused; and transforms of mammoth."""

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.errors import SchemaError

__all__ = ["ReadOnlyTensor", "Transform", "WrittenFields", "transformed"]

Transform: TypeAlias = Callable[[Any], Any] | None


class ReadOnlyTensor(Tensor):
    """A tensor that refuses to be written in place, as do its views; what is computed of it is a plain tensor."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute, unless it writes."""
        given = dict(kwargs or {})
        name = func.__name__
        in_place = name == "__setitem__" or (name.startswith("__i") and name.removeprefix("__i") in _IN_PLACE)
        in_place |= name.endswith("_") and not name.endswith("__")
        if (in_place and args and isinstance(args[0], cls)) or isinstance(given.get("out"), cls):
            raise SchemaError(
                "this tensor of a buffer cannot be changed in place: what it shows is stored, and this is a copy; of a "
                "buffer on the CPU logits, task_labels and true_labels can be; else empty() it and add_data(), or "
                "clone() the tensor for other purposes"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **given)
        if name in _VIEWS and isinstance(result, Tensor) and not isinstance(result, cls) and result._is_view():
            return result.as_subclass(cls)
        return result


_IN_PLACE = {"add__", "sub__", "mul__", "truediv__", "floordiv__", "mod__", "pow__", "and__", "or__", "xor__"}
_VIEWS = {"__getitem__", "view", "reshape", "narrow", "select", "squeeze", "unsqueeze", "flatten", "detach"}


class WrittenFields:
    """Fields of all exemplars, in RAM once they are asked for: one tensor each, which may be written in place.

    `read` returns a field of the exemplars of some slots, `write` stores what differs from what it holds.
    """

    def __init__(
        self,
        read: Callable[[str, NDArray[np.int64]], Tensor],
        write: Callable[[str, NDArray[np.int64], Tensor], None],
    ) -> None:
        self._read, self._write = read, write
        self._tensors: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}  # of a tensor when it was as stored; -1 of one that was written since

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str, slots: NDArray[np.int64], rows: int) -> Tensor:
        """Return a field as a tensor of so many rows, zeros behind those of the exemplars."""
        if name not in self._tensors:
            self._tensors[name] = _padded(self._read(name, slots), rows)
            self._versions[name] = self._tensors[name]._version
        return self._tensors[name]

    def moved(self, before: NDArray[np.int64], now: NDArray[np.int64], rows: int) -> None:
        """Follow the exemplars from slots to slots; a tensor of as many rows as before stays the same object."""
        for name, tensor in self._tensors.items():
            was_written = tensor._version != self._versions[name]
            places = np.searchsorted(before, now)
            stay = np.isin(now, before)
            values = tensor.new_empty((len(now), *tensor.shape[1:]))
            values[torch.from_numpy(stay)] = tensor[torch.from_numpy(places[stay])]
            if not stay.all():
                values[torch.from_numpy(~stay)] = self._read(name, now[~stay])
            padded = _padded(values, rows)
            if padded.shape == tensor.shape:
                tensor.copy_(padded)
            else:
                self._tensors[name] = padded
            self._versions[name] = -1 if was_written else self._tensors[name]._version

    def write_back(self, slots: NDArray[np.int64]) -> None:
        """Store what was written into the tensors."""
        for name, tensor in self._tensors.items():
            if tensor._version != self._versions[name]:
                self._write(name, slots, tensor[: len(slots)])
                self._versions[name] = tensor._version


def _padded(values: Tensor, rows: int) -> Tensor:
    padding = values.new_zeros((max(0, rows - len(values)), *values.shape[1:]))
    return torch.cat([values, padding]) if len(padding) else values.clone()


@functools.cache
def _apply_of_mammoth() -> Callable[[Tensor, Any], Tensor]:
    apply: Callable[[Tensor, Any], Tensor] = importlib.import_module("utils.augmentations").apply_transform
    return apply


def transformed(images: Tensor, transform: Transform) -> Tensor:
    """Apply a transform as mammoth does where its own function is there, else to each image.

    Kornia's transforms of mammoth take a batch; all others, those of torchvision among them, take one image on the CPU.
    """
    if transform is None or not len(images):
        return images
    try:
        apply = _apply_of_mammoth()
    except (ImportError, AttributeError):
        return torch.stack([transform(image) for image in images.cpu()]).to(images.device)
    return apply(images, transform)
