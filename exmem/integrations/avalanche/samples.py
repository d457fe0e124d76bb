"""Samples of Avalanche's data sets as fields of exemplars."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_classification_dataset,  # what the peer's own buffers take
)
from avalanche.models import avalanche_forward
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.integrations.samples.fields import IMAGE, TEXT
from exmem.integrations.samples.images import fitted
from exmem.tokens.checks import choice, mapping_of, shown

__all__ = [
    "LOGITS",
    "TASKS",
    "ImageText",
    "SampleForm",
    "SampleSource",
    "best_of_groups",
    "image_text_collate",
]

TASKS, LOGITS = "targets_task_labels", "logits"  # what Avalanche calls these attributes of a data set
_FORWARD = 64  # samples a batch when logits are computed
_KINDS = ("array", "pil", "tensor")
_PARTS = ("mapping", "pair", "single")


class ImageText(dict[str, Tensor]):
    """An image and token ids, by the names `image` and `text`: a sample, or a batch of them, that goes to a device.

    `default_collate` makes a batch of samples, and `torch.cat` one of batches, as DER asks.
    """

    def to(self, *args: Any, **kwargs: Any) -> "ImageText":
        """Return it with both on a device, or of a dtype.

        Parameters
        ----------
        *args, **kwargs : object
            As of `Tensor.to`.

        Returns
        -------
        ImageText
            The same names.
        """
        return ImageText({name: held.to(*args, **kwargs) for name, held in self.items()})

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is not torch.cat:
            return NotImplemented
        parts, *rest = args
        return cls({name: torch.cat([part[name] for part in parts], *rest, **(kwargs or {})) for name in parts[0]})


def image_text_collate(samples: Sequence[Sequence[Any]]) -> list[Any]:
    """Collate samples whose x is a pair of an image and token ids.

    Parameters
    ----------
    samples : sequence of (x, y, ...)
        As a data set of pairs yields them: give this as its `collate_fn`.

    Returns
    -------
    list
        An ImageText, and the others as `default_collate` makes them.
    """
    (images, ids), *others = default_collate([tuple(sample) for sample in samples])
    return [ImageText({IMAGE: images, TEXT: ids}), *others]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleForm:
    """How samples look before their transforms, so that exemplars come back alike.

    `kind` is that of the image, `mode` that of a PIL image, `y` the dtype of targets that are tensors, None for ints.
    """

    kind: Literal["array", "pil", "tensor"]
    parts: Literal["mapping", "pair", "single"]
    mode: str | None = None
    y: str | None = None

    @classmethod
    def of(cls, x: Any, y: Any) -> "SampleForm":
        """Describe a sample; InvalidExemplarError if it cannot be stored."""
        parts: Literal["mapping", "pair", "single"] = "single"
        if isinstance(x, Mapping) and set(x) == {IMAGE, TEXT}:
            parts = "mapping"
        elif isinstance(x, tuple | list) and len(x) == 2:
            parts = "pair"
        image = x[IMAGE] if parts == "mapping" else x[0] if parts == "pair" else x
        dtype = str(y.dtype).removeprefix("torch.") if isinstance(y, Tensor) else None
        if isinstance(image, Image.Image) and image.mode in {"L", "RGB"}:
            return cls(kind="pil", parts=parts, mode=image.mode, y=dtype)
        if isinstance(image, Tensor | np.ndarray):
            return cls(kind="tensor" if isinstance(image, Tensor) else "array", parts=parts, y=dtype)
        what = f"a PIL image of mode {image.mode}" if isinstance(image, Image.Image) else shown(image)
        raise InvalidExemplarError(
            "expected x before its transforms to be a tensor, an array or a PIL image of mode L or RGB, a pair of one "
            f"and token ids, or both by the names {IMAGE!r} and {TEXT!r}, got {what}"
        )

    @classmethod
    def from_json(cls, described: Any, location: str) -> "SampleForm":
        """Read what a memory notes, of whatever origin."""
        try:
            form = cls(**mapping_of(described, "the form of samples"))
            choice(form.kind, "kind", _KINDS)
            choice(form.parts, "parts", _PARTS)
            if form.y is not None and not isinstance(getattr(torch, form.y), torch.dtype):
                raise TypeError(form.y)
        except (TypeError, AttributeError) as error:
            raise SchemaError(f"{location}: what it notes of samples is broken ({error})") from error
        return form

    def fields(self, xs: Sequence[Any], size: tuple[int, int] | None) -> dict[str, Tensor]:
        """Return samples as fields; PIL images are scaled and cut to a size where one is given."""
        pairs = [
            (x[IMAGE], x[TEXT]) if self.parts == "mapping" else x if self.parts == "pair" else (x, None) for x in xs
        ]
        fields = {IMAGE: _stacked([self._tensor(image, size) for image, _ in pairs], IMAGE)}
        if self.parts != "single":
            fields[TEXT] = _stacked([torch.as_tensor(ids) for _, ids in pairs], TEXT)
        return fields

    def _tensor(self, image: Any, size: tuple[int, int] | None) -> Tensor:
        if self.kind != "pil":
            return torch.as_tensor(image)
        if not isinstance(image, Image.Image) or image.mode != self.mode:
            got = f"one of mode {image.mode}" if isinstance(image, Image.Image) else shown(image)
            raise InvalidExemplarError(f"expected PIL images of mode {self.mode} as before, got {got}; convert it")
        pixels = torch.from_numpy(np.array(fitted(image, size, mode=image.mode)))
        return pixels[None] if self.mode == "L" else pixels.permute(2, 0, 1)

    def x(self, image: Tensor, text: Tensor | None) -> Any:
        """Return an exemplar as a sample's x."""
        if self.kind == "pil":
            pixels = image.permute(1, 2, 0).numpy()
            made: Any = Image.fromarray(pixels[..., 0] if self.mode == "L" else np.ascontiguousarray(pixels))
        else:
            made = image.numpy() if self.kind == "array" else image
        if text is None:
            return made
        return ImageText({IMAGE: made, TEXT: text}) if self.parts == "mapping" else (made, text)

    def targets(self, targets: NDArray[np.int64]) -> list[Any]:
        """Return targets as samples have them."""
        if self.y is None:
            return list(map(int, targets.tolist()))
        return list(torch.from_numpy(targets).to(getattr(torch, self.y)).unbind())


def _stacked(values: list[Tensor], name: str) -> Tensor:
    shapes = sorted({tuple(value.shape) for value in values})
    if len(shapes) > 1:
        raise InvalidExemplarError(
            f"{name}: expected samples of one shape, got {shapes[:4]}; for PIL images give size=(height, width), to "
            "which they are scaled and cut"
        )
    return torch.stack(values)


class SampleSource:
    """Samples of a data set, read when they are stored: fields without the current transforms, and their labels.

    `labels` are the groups that share a memory; `columns` are what else is known of each. Frozen transforms are part of
    the samples. `number` is that of the experience.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        groupby: str | None,
        number: int,
        form: SampleForm | None,
        size: tuple[int, int] | None,
        strategy: Any,
        with_logits: bool,
    ) -> None:
        if not isinstance(dataset, AvalancheDataset):
            dataset = _make_taskaware_classification_dataset(dataset)
        if "targets" not in dataset._data_attributes:
            raise SchemaError("expected a data set with targets; make it with as_classification_dataset of Avalanche")
        added = {name for name, held in dataset._data_attributes.items() if held.use_in_getitem}
        if extra := sorted(added - {TASKS, LOGITS}):
            raise SchemaError(f"expected samples of x, y and task label, got some with {extra}, which are not stored")
        self.data, self.strategy, self.form = dataset, strategy, form
        self._raw, self._size, self._with_logits = dataset.remove_current_transform_group(), size, with_logits
        self.columns: dict[str, NDArray[np.int64]] = {}
        if TASKS in added:
            self.columns[TASKS] = _integers(getattr(dataset, TASKS))
        self.labels = _integers(dataset.targets)
        if groupby != "class":
            self.columns["targets"] = self.labels
            self.labels = np.full(len(self.labels), number if groupby == "experience" else 0, np.int64)
        if groupby == "task":
            if TASKS not in self.columns:
                raise SchemaError("groupby='task' needs samples with task labels; make the benchmark with them")
            self.labels = self.columns[TASKS]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return samples as fields."""
        samples = [self._raw[index] for index in indices.tolist()]
        if self.form is None:
            self.form = SampleForm.of(samples[0][0], samples[0][1])
        fields = self.form.fields([sample[0] for sample in samples], self._size)
        fields |= {name: torch.from_numpy(column[indices]) for name, column in self.columns.items()}
        if self._with_logits:
            fields[LOGITS] = self._logits(indices)
        return fields

    @torch.no_grad()
    def _logits(self, indices: NDArray[np.int64]) -> Tensor:
        model = self.strategy.model
        device, was_training = next(model.parameters()).device, model.training
        data = self.data.eval().subset(indices.tolist())
        model.eval()
        made = []
        for x, _, *task in DataLoader(data, batch_size=_FORWARD, collate_fn=data.collate_fn):
            there = x.to(device)
            made.append((avalanche_forward(model, there, task[0].to(device)) if task else model(there)).cpu())
        model.train(was_training)
        return torch.cat(made)


def _integers(values: Any) -> NDArray[np.int64]:
    return np.array([int(value) for value in values], np.int64)


def best_of_groups(
    groups: NDArray[np.int64],
    priorities: NDArray[np.float64],
    shares_of: Callable[[Mapping[int, int]], Mapping[int, int]],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Say which samples their groups' shares hold, highest priorities first, and the rank of each in its group.

    `shares_of` returns how many a group may have, of how many each has. Of equal priorities the first stays.
    """
    order = np.lexsort((-priorities, groups))
    found, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    shares = shares_of(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, counts)
    return ranks < np.array([shares[group] for group in groups.tolist()], np.int64), ranks
