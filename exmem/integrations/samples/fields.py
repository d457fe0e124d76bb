"""Samples as named tensors, and the exemplars that they become: what the adapters to other libraries share."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.recipes import BoundRecipe, PlainImages, Recipe
from exmem.replay.pipeline import Pipeline
from exmem.tokens import Exemplar, ExtraSpec, PaddedTokens, Schema, TokenBatch, TokenSet, TokenSpec
from exmem.tokens.checks import mapping_of
from exmem.tokens.tensors import TensorBatch

__all__ = ["IMAGE", "TEXT", "FieldLayout", "FieldSpec", "file_bytes", "raw_bytes", "rows_of"]

IMAGE, TEXT = "image", "text"
_CHANNELS = (1, 3)
_STORED = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_NOTE = "fields"  # among the notes of a memory
_EACH, _ROOT = 320, 65_536  # bytes of an exemplar beside its values, and of a memory beside its exemplars: generous
_ROOM = 4  # a memory that fills its budget writes its files anew; in four times as much it seldom does
_FILES, _MOST_FILE = 4, 2**22  # raw samples take at least so many files of each array, of 4 MiB at most: a choice


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """How a field of a sample looks: the shape of one value, and its dtype as torch names it, such as `float32`."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, values: Tensor) -> "FieldSpec":
        """Describe a batch of values (B, *shape)."""
        return cls(tuple(values.shape[1:]), str(values.dtype).removeprefix("torch."))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype."""
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise SchemaError(f"expected a dtype of torch, got {self.dtype!r}")
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one value in RAM."""
        return math.prod(self.shape) * self.torch_dtype.itemsize


def rows_of(values: Any, name: str) -> Tensor:
    """Return a field as a tensor of rows; arrays that run backwards are copied, which torch does not take."""
    tensor = torch.as_tensor(np.ascontiguousarray(values) if isinstance(values, np.ndarray) and values.ndim else values)
    if not tensor.ndim:
        raise InvalidExemplarError(f"{name}: expected one value for each sample, got a single one")
    return tensor


def raw_bytes(samples: int, fields: Mapping[str, FieldSpec]) -> int:
    """Return a budget that never limits so many samples of these fields: four times what they take uncompressed."""
    return _ROOM * (samples * (sum(spec.nbytes for spec in fields.values()) + _EACH) + _ROOT)


def file_bytes(budget: int) -> int:
    """Return about the bytes of exemplars that share a file of each array, in a budget that never limits them."""
    shared = budget // (_ROOM * _FILES)
    return int(min(1 << shared.bit_length() - 1, _MOST_FILE))


class FieldLayout:
    """How samples of some fields are stored, and come back.

    `image` is stored by a recipe where there is one, and comes back as it was given: uint8, or floats of 0..1, of 1 or
    3 channels, first or last. Without a recipe it is stored bit for bit, whatever it is. `text` is rows of token ids,
    of which zeros take no place. All else is an extra field: of fixed size, exact.
    """

    def __init__(self, fields: Mapping[str, FieldSpec], *, by_recipe: bool) -> None:
        if IMAGE not in fields:
            raise SchemaError(f"expected a field {IMAGE!r} among those of a sample, got {sorted(fields)}")
        self.fields, self.by_recipe = dict(fields), by_recipe
        shape = fields[IMAGE].shape
        self._channels_first = bool(shape) and shape[0] in _CHANNELS
        for name, spec in fields.items():
            if spec.dtype not in _STORED and not (by_recipe and name == IMAGE):
                raise SchemaError(
                    f"{name}: expected one of {', '.join(_STORED)}, got {spec.dtype}; convert it before it is added"
                )
        if by_recipe and not self._is_image():
            raise SchemaError(
                f"{IMAGE}: expected uint8, or floats of 0..1, of shape (3, H, W), (H, W, 3), (1, H, W) or (H, W, 1), "
                f"got {fields[IMAGE].dtype} of shape {shape}; recipe=None stores any tensor as it is"
            )
        self.kept = dict(fields)  # how decoded samples are kept in RAM: images as uint8, channels first
        if by_recipe:
            channels, size = (shape[0], shape[1:]) if self._channels_first else (shape[2], shape[:2])
            self._size = (int(size[0]), int(size[1]))
            self.kept[IMAGE] = FieldSpec((channels, *self._size), "uint8")
        # fields that come back as they are kept
        self.unchanged = frozenset(name for name, spec in self.kept.items() if spec == fields[name])

    def _is_image(self) -> bool:
        spec = self.fields[IMAGE]
        known = spec.dtype == "uint8" or spec.torch_dtype.is_floating_point
        return known and len(spec.shape) == 3 and (self._channels_first or spec.shape[2] in _CHANNELS)

    def bound(self, recipe: "Recipe | BoundRecipe | str | None") -> BoundRecipe | None:
        """Bind a recipe to plain images of the size, unless it is bound already; SchemaError if it does not fit."""
        if recipe is None:
            return None
        if not isinstance(recipe, BoundRecipe):
            common = math.gcd(*self._size)
            most = max(1, min(16, common // 4))  # 16 pixels as in ViT-B/16, less where images are small: a choice
            patch = max(side for side in range(1, most + 1) if common % side == 0)
            recipe = BoundRecipe(recipe, PlainImages(size=self._size, patch=patch))
        if recipe.recipe.level != "pixels":
            raise SchemaError(f"recipe {recipe.recipe.name!r} stores no pixels, which are what comes back here")
        if recipe.is_trained or recipe.recipe.extras:
            raise SchemaError(f"recipe {recipe.recipe.name!r} trains a codec or has extras; choose another here")
        return recipe

    def schema(self, bound: BoundRecipe | None) -> Schema:
        """Return the schema of a memory of such samples."""
        spec = self.fields[IMAGE]
        if bound is not None:
            modalities = {name: held for name, held in bound.schema.modalities.items() if name != TEXT}
        else:
            modalities = {IMAGE: TokenSpec(positions=1, shape=spec.shape, dtype=spec.dtype, codec="lossless")}
        if TEXT in self.fields:
            ids = self.fields[TEXT]
            if len(ids.shape) != 1 or ids.torch_dtype.is_floating_point:
                raise SchemaError(f"{TEXT}: expected rows of token ids, got {ids.dtype} of shape {ids.shape}")
            modalities[TEXT] = TokenSpec(positions=ids.shape[0], dtype=ids.dtype)
        extras = {
            name: ExtraSpec(shape=spec.shape, dtype=spec.dtype)
            for name, spec in self.fields.items()
            if name not in {IMAGE, TEXT}
        }
        return Schema(modalities, extras, None if bound is None else bound.schema.recipe)

    def to_json(self) -> dict[str, Any]:
        """Return what a memory notes of it."""
        return {_NOTE: {name: [list(spec.shape), spec.dtype] for name, spec in self.fields.items()}}

    @classmethod
    def noted(cls, notes: Mapping[str, Any], schema: Schema, location: str) -> "FieldLayout":
        """Return the layout that a memory notes; SchemaError if it notes none, or one that is not what it stores."""
        try:
            fields = mapping_of(notes[_NOTE], _NOTE)
            specs = {name: FieldSpec(tuple(map(int, shape)), str(dtype)) for name, (shape, dtype) in fields.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"{location}: no adapter made this memory, for it notes no fields ({error!r})") from error
        layout = cls(specs, by_recipe=schema.recipe is not None)
        expected, held = layout.schema(None), {**schema.modalities, **schema.extras}
        exact = [name for name in specs if name != IMAGE]
        if any(held.get(name) != {**expected.modalities, **expected.extras}[name] for name in exact):
            raise SchemaError(f"{location}: the fields it notes are not those it stores; choose another place")
        return layout

    def exemplars(
        self,
        values: Mapping[str, Tensor],
        bound: BoundRecipe | None,
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Make exemplars of a batch of samples; InvalidExemplarError if it does not fit."""
        self.check(values, len(labels))
        extras = {name: values[name].numpy(force=True) for name in self.fields if name not in {IMAGE, TEXT}}
        ids = values[TEXT].numpy(force=True) if TEXT in values else None
        if bound is None:
            tokens = [{IMAGE: TokenSet.dense(row[None])} for row in values[IMAGE].numpy(force=True)]
        else:
            made = bound.make(self._pixels(values[IMAGE]), [""] * len(labels), labels)
            tokens = [{name: held for name, held in one.tokens.items() if name != TEXT} for one in made]
        return [
            Exemplar(
                tokens[row] if ids is None else {**tokens[row], TEXT: TokenSet.kept(ids[row], ids[row] != 0)},
                label=int(labels[row]),
                priority=float(priorities[row]),
                extras={name: held[row] for name, held in extras.items()},
            )
            for row in range(len(labels))
        ]

    def batch(
        self, values: Mapping[str, Tensor], labels: NDArray[np.int64], priorities: NDArray[np.float64]
    ) -> TokenBatch:
        """Make exemplars of a batch of samples without a recipe and texts; InvalidExemplarError if it does not fit."""
        self.check(values, len(labels))
        arrays = {name: held.numpy(force=True) for name, held in values.items()}
        whole = np.ones((len(labels), 1), np.bool_)
        tokens = PaddedTokens(arrays.pop(IMAGE)[:, None], np.zeros(whole.shape, np.int64), whole)
        return TokenBatch({IMAGE: tokens}, labels, priorities, arrays)

    def check(self, values: Mapping[str, Tensor], count: int) -> None:
        """Refuse a batch that is not of so many samples like the first ones; InvalidExemplarError."""
        if set(values) != set(self.fields):
            raise InvalidExemplarError(f"expected the fields {sorted(self.fields)}, got {sorted(values)}")
        for name, spec in self.fields.items():
            given = FieldSpec.of(values[name])
            if given != spec or len(values[name]) != count:
                raise InvalidExemplarError(
                    f"{name}: expected {spec.dtype} of shape {(count, *spec.shape)}, got {given.dtype} of shape "
                    f"{tuple(values[name].shape)}"
                )

    def _pixels(self, images: Tensor) -> NDArray[np.uint8]:
        """Return images (B, H, W, 3) of uint8."""
        pixels = images.detach()
        if images.dtype != torch.uint8:
            least, most = (float(pixels.amin()), float(pixels.amax())) if len(images) else (0.0, 0.0)
            if not (least >= 0 and most <= 1):  # NaN is neither
                raise InvalidExemplarError(
                    f"{IMAGE}: expected floats of 0..1, got {least:.6g}..{most:.6g}; give images as they are before "
                    "they are normalised"
                )
            pixels = pixels.mul(255).round().to(torch.uint8)
        if self._channels_first:
            pixels = pixels.movedim(1, -1)
        array: NDArray[np.uint8] = pixels.expand(*pixels.shape[:3], 3).numpy(force=True)
        return array

    def decoded(self, batch: TokenBatch, pipeline: Pipeline | None) -> dict[str, Tensor]:
        """Return a batch as it is kept in RAM; the pipeline is that of its memory, where a recipe made it."""
        held = {name: torch.from_numpy(batch.extras[name]) for name in batch.extras}
        if pipeline is None:
            held[IMAGE] = torch.from_numpy(batch.tokens[IMAGE].values[:, 0])
        else:
            images = pipeline(TensorBatch.from_numpy(batch)).images("mean")
            held[IMAGE] = images[:, : self.kept[IMAGE].shape[0]]
        if TEXT in self.fields:
            tokens = batch.tokens[TEXT]
            ids = np.zeros((len(batch.labels), *self.fields[TEXT].shape), tokens.values.dtype)
            rows, columns = np.nonzero(tokens.valid)
            ids[rows, tokens.positions[rows, columns]] = tokens.values[rows, columns]
            held[TEXT] = torch.from_numpy(ids)
        return {name: held[name] for name in self.fields}

    def as_given(self, name: str, kept: Tensor) -> Tensor:
        """Return a field as it was given, of what is kept in RAM."""
        if name != IMAGE or not self.by_recipe:
            return kept
        dtype = self.fields[IMAGE].torch_dtype
        images = kept
        if dtype == torch.float32:
            images = torch.div(kept, 255)  # one pass, to the same values as in two
        elif dtype != torch.uint8:
            images = kept.to(dtype).div_(255)
        return images if self._channels_first else images.movedim(1, -1)
