"""Exemplars as raw examples again, and into a loader's batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.integrations.memory_rows import MemoryRows
from exmem.integrations.samples.images import fitted
from exmem.tokens.checks import as_array, label_of, shown

__all__ = ["ReplayCollate", "RowForm"]


_MODES = frozenset({"L", "LA", "RGBA"})  # of PIL, which an exemplar gets again; alpha is opaque then


class RowForm:
    """How raw examples look: read from the first of them, so that exemplars can be given the same form.

    `fields` are those of the memory, `columns` says what they are called in an example, and the tokenizer makes texts
    of ids; without one they stay lists of ids.
    """

    def __init__(
        self, example: Any, *, fields: tuple[str, ...], columns: Mapping[str, Any] | None, tokenizer: Any = None
    ) -> None:
        self.stored, self._tokenizer, self._is_dict = fields, tokenizer, isinstance(example, Mapping)
        if not isinstance(example, Mapping | tuple):
            raise SchemaError(f"expected examples that are dicts, or tuples of image and label, got {shown(example)}")
        wanted = [name for name in fields if name != "text_valid"]
        usual = {name: name for name in wanted} if self._is_dict else {"image": 0, "label": 1}
        self._columns = {**usual, **(columns or {})}
        held = set(example) if isinstance(example, Mapping) else set(range(len(example)))
        if lacking := [name for name in wanted if self._columns.get(name) not in held]:
            raise SchemaError(
                f"the examples have the columns {sorted(held, key=str)}; say in columns= which of them are {lacking}"
            )
        if extra := sorted(set(self._columns) - {"image", "label", "text"}):
            raise SchemaError(f"columns= names image, label and text, got {extra}")
        self._wanted = wanted
        if not self._is_dict and {self._columns[name] for name in wanted} != held:
            raise SchemaError(f"expected tuples of {wanted}, got {len(held)} values; give dicts where there are more")
        first = example[self._columns["image"]] if "image" in wanted else np.zeros((1, 1, 3), np.uint8)
        self._image_type, self._image_mode = type(first), getattr(first, "mode", "RGB")
        self._image_shape = () if isinstance(first, Image.Image) else tuple(as_array(first).shape)
        if "image" in wanted:
            _pixels(first, (8, 8))  # what is no image is told now, not when the phase has been learnt
        self.label(example)

    def label(self, row: Any) -> int:
        """Return the class of an example."""
        return label_of(row[self._columns["label"]], error=InvalidExemplarError)

    def labels(self, examples: Any) -> NDArray[np.int64]:
        """Return the classes of all examples, shape (N,); of a table by its column, so that no image is decoded."""
        name = self._columns["label"]
        if name in getattr(examples, "column_names", ()):
            return np.array([label_of(label, error=InvalidExemplarError) for label in examples[name]], np.int64)
        return np.array([self.label(examples[index]) for index in range(len(examples))], np.int64)

    def images(self, rows: Sequence[Any], size: tuple[int, int] | None) -> NDArray[np.uint8]:
        """Return their images, scaled and cut to a size, (B, H, W, 3); black dots where none is stored."""
        if size is None or "image" not in self._wanted:
            return np.zeros((len(rows), 1, 1, 3), np.uint8)
        return np.stack([_pixels(row[self._columns["image"]], size) for row in rows])

    def texts(self, rows: Sequence[Any]) -> list[str]:
        """Return their texts, empty where there are none."""
        return [row[self._columns["text"]] if "text" in self._wanted else "" for row in rows]

    def raw(self, row: dict[str, Any]) -> Any:
        """Return an exemplar in the form of a raw example."""
        values = {"label": row["label"]}
        if "image" in row:
            values["image"] = self._image(row["image"])
        if "text" in row:
            ids = row["text"][row["text_valid"]].tolist()
            values["text"] = ids if self._tokenizer is None else self._tokenizer.decode(ids, skip_special_tokens=True)
        by_column = {self._columns[name]: values[name] for name in self._wanted}
        return by_column if self._is_dict else tuple(by_column[at] for at in sorted(by_column))

    def _image(self, pixels: NDArray[np.uint8]) -> Any:
        if issubclass(self._image_type, Image.Image):
            image = Image.fromarray(pixels)
            return image.convert(self._image_mode) if self._image_mode in _MODES else image
        shape, is_tensor = self._image_shape, issubclass(self._image_type, Tensor)
        if len(shape) == 2:
            return torch.from_numpy(pixels[..., 0].copy()) if is_tensor else pixels[..., 0]
        channels = pixels[..., : shape[0] if is_tensor else shape[2]]
        return torch.from_numpy(np.ascontiguousarray(channels)).permute(2, 0, 1) if is_tensor else channels


class ReplayCollate:
    """Collates the examples of a batch and exemplars of a memory; which ones follows from the number of the batch.

    That is told by `begin`; where it is not, an iteration with workers begins with any pass, by torch's seed, and one
    without goes on where the last one was left.
    """

    def __init__(
        self,
        inner: Callable[[list[Any]], Any],
        rows: MemoryRows,
        form: RowForm,
        *,
        transform: Callable[[Any], Any] | None,
        replay: int,
        share: tuple[int, int],
        options: Mapping[str, Any],
    ) -> None:
        self.inner, self._rows, self._form, self._transform = inner, rows, form, transform
        self._count, (self._rank, self._ranks), self._options = min(replay, len(rows)), share, options
        self._first: int | None = None
        self._taken = 0
        self._passes: dict[int, NDArray[np.int64]] = {}

    def begin(self, batches: int) -> None:
        """Let the next batch be the one after so many."""
        self._first, self._taken = batches, 0

    def __call__(self, examples: list[Any]) -> Any:
        """Collate the loader's examples and, after them, exemplars."""
        raw = [self._form.raw(row) for row in self._rows.read(self._drawn(self._number()))]
        replayed = raw if self._transform is None else self._transformed(raw)
        if len(replayed) != len(raw):
            raise SchemaError(f"expected transform to return {len(raw)} examples of {len(raw)}, got {len(replayed)}")
        pairs = zip(replayed, raw, strict=True)
        together = [*examples, *(_alike(example, examples[0], given) for example, given in pairs)]
        try:
            return self.inner(together)
        except (RuntimeError, TypeError, ValueError) as error:
            raise SchemaError(
                f"replayed examples cannot be collated with the loader's: {error}; give transform=, what made the "
                "loader's examples of raw ones, and let it bring images to one size"
            ) from error

    def _number(self) -> int:
        worker, taken = get_worker_info(), self._taken
        self._taken += 1
        if worker is None:
            batch = (self._first or 0) + taken
        else:  # they take turns
            any_pass = (worker.seed - worker.id) % 2**31 * len(self._rows)  # torch has another seed for each iteration
            first = any_pass if self._first is None else self._first
            batch = first + worker.id + worker.num_workers * taken
        return batch * self._ranks + self._rank

    def _drawn(self, number: int) -> list[int]:
        """Return the rows of a batch: passes one after the other, cut into batches."""
        length, start = len(self._rows), number * self._count
        drawn = []
        for at in range(start, start + self._count):
            if at // length not in self._passes:
                sampler, seed = self._options["sampler"], self._options["seed"]
                self._passes = {at // length: self._rows.drawn(at // length, sampler=sampler, seed=seed)}
            drawn.append(int(self._passes[at // length][at % length]))
        return drawn

    def _transformed(self, raw: list[Any]) -> list[Any]:
        assert self._transform is not None
        if not self._options["batched"]:
            return [self._transform(example) for example in raw]
        columns = self._transform({name: [example[name] for example in raw] for name in raw[0]})
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _alike(example: Any, beside: Any, raw: Any) -> Any:
    """Return a replayed example with what a new one has, in the same types; raw columns stay, as in `Dataset.map`."""
    if not isinstance(beside, Mapping):
        if isinstance(beside, tuple) and isinstance(example, tuple) and len(example) == len(beside):
            return tuple(map(_typed, example, beside))
        return _typed(example, beside)
    held = {**(raw if isinstance(raw, Mapping) else {}), **(example if isinstance(example, Mapping) else {})}
    if lacking := sorted(set(beside) - set(held)):
        raise SchemaError(
            f"the loader's examples have {sorted(beside)}, a replayed one lacks {lacking}; give transform=, what made "
            "the loader's examples of raw ones"
        )
    return {name: _typed(held[name], value) for name, value in beside.items()}


def _typed(value: Any, beside: Any) -> Any:
    if isinstance(beside, Tensor):
        return torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value).to(beside.dtype)
    if isinstance(beside, np.ndarray):
        return as_array(value).astype(beside.dtype)
    return value.tolist() if isinstance(beside, int | float | list) and hasattr(value, "tolist") else value


def _pixels(image: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image as (H, W, 3) of a size: scaled to cover it, and cut at the middle."""
    if not isinstance(image, Image.Image):
        array = as_array(image)
        if isinstance(image, Tensor) and array.ndim == 3:
            array = array.transpose(1, 2, 0)
        if array.dtype != np.uint8 or array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 3}):
            raise InvalidExemplarError(
                f"expected an image of PIL, or (H, W, 3) of uint8, got {array.dtype} of shape {array.shape}; give raw "
                "examples, not transformed ones"
            )
        image = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))
    return np.asarray(fitted(image, size))
