"""Exemplars of an export: plain JSON values and files, and back."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError
from exmem.store.encode import check_tokens
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec
from exmem.tokens.checks import fitting, label_of, real_number, shown, whole_number
from exmem.tokens.patches import cut_patches, join_patches

__all__ = ["FILES", "exemplar_of", "is_image", "line_of"]

FILES = "files"
_INLINE = 64  # values that are written into the metadata
_INFINITIES = {str(value): value for value in (math.inf, -math.inf)}  # JSON has none


def is_image(spec: TokenSpec) -> bool:
    """Say whether the tokens of a modality can be drawn: uint8 of shape (h, w), (h, w, 1) or (h, w, 3)."""
    shape = tuple(spec.shape)
    return spec.dtype == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3}))


def line_of(root: Path, schema: Schema, slot: int, exemplar: Exemplar) -> dict[str, Any]:
    """Return an exemplar as JSON values; what is large is written into files."""
    tokens: dict[str, Any] = {}
    for name, kept in exemplar.tokens.items():
        spec = schema.modalities[name]
        tokens[name] = {"positions": kept.positions.tolist()}
        if is_image(spec):
            tokens[name]["file"] = f"{FILES}/{slot}-{name}.png"
            (root / tokens[name]["file"]).write_bytes(imagecodecs.png_encode(_canvas(spec, kept)))
        elif kept.values.size <= _INLINE and kept.values.dtype.kind in "iub":
            tokens[name]["values"] = kept.values.tolist()
        else:
            tokens[name]["file"] = f"{FILES}/{slot}-{name}.npy"
            np.save(root / tokens[name]["file"], kept.values, allow_pickle=False)
    extras = {name: np.asarray(value).tolist() for name, value in exemplar.extras.items()}
    priority = exemplar.priority if math.isfinite(exemplar.priority) else str(exemplar.priority)
    return {"slot": slot, "label": exemplar.label, "priority": priority, "tokens": tokens, "extras": extras}


def exemplar_of(root: Path, schema: Schema, line: Any) -> Exemplar:
    """Return the exemplar of a line; all kinds of errors if it is none."""
    tokens = {name: _tokens(root, spec, line["tokens"][name]) for name, spec in schema.modalities.items()}
    for name, spec in schema.modalities.items():
        check_tokens(repr(name), tokens[name], spec)
    extras = {
        name: _array(line["extras"][name], str(field.dtype), field.shape, f"extra field {name!r}")
        for name, field in schema.extras.items()
    }
    label = label_of(line["label"])
    given = line["priority"]
    priority = real_number(_INFINITIES.get(given, given) if isinstance(given, str) else given, "priority")
    return Exemplar(tokens, label=label, priority=priority, extras=extras)


def _tokens(root: Path, spec: TokenSpec, entry: dict[str, Any]) -> TokenSet:
    positions = _array(entry["positions"], "int64", (len(entry["positions"]),), "positions")
    if "values" in entry:
        values = _array(entry["values"], str(spec.dtype), (len(positions), *spec.shape), "values")
        return TokenSet(positions, values)
    file = root / entry["file"]
    if not file.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{entry['file']} leads out of {root}")
    if file.suffix == ".npy":
        return TokenSet(positions, np.load(file, allow_pickle=False))
    canvas = np.asarray(imagecodecs.png_decode(file.read_bytes()))
    return TokenSet(positions, _cut(spec, canvas)[positions])


def _array(entry: Any, dtype: str, shape: Sequence[int], what: str) -> NDArray[Any]:
    """Return numbers of a line as an array, by the rules of `add`; NumPy would cast text, null and fractions."""
    if 0 in shape and entry == []:
        return np.zeros(shape, dtype)
    given = np.asarray(entry, object)  # so that each is looked at as it was written
    kind = np.dtype(dtype).kind
    known = {"b": (bool,), "f": (int, float)}.get(kind, (int,))
    strange = [leaf for leaf in given.flat if type(leaf) not in known]
    if strange:
        raise DataError(f"{what}: expected {dtype}, got {shown(strange[0])}")
    if kind in "iu" and given.size:  # NumPy makes floats of whole numbers of both signs and 64 bits
        span = np.iinfo(dtype)
        for number in (given.min(), given.max()):
            whole_number(number, what, least=int(span.min), most=int(span.max), error=DataError)
    return fitting(given.astype(np.float64 if kind == "f" else dtype), dtype, shape, what, error=DataError)


def _grid(spec: TokenSpec) -> tuple[int, int]:
    side = math.isqrt(spec.positions)
    return spec.grid or ((side, side) if side * side == spec.positions else (spec.positions, 1))


def _canvas(spec: TokenSpec, tokens: TokenSet) -> NDArray[np.uint8]:
    """Return the whole image, black where a token was dropped."""
    rows, columns = _grid(spec)
    height, width, *channels = spec.shape
    dense = np.zeros((rows * columns, *spec.shape), np.uint8)
    dense[tokens.positions] = tokens.values
    image: NDArray[np.uint8] = join_patches(dense.reshape(1, rows * columns, height, width, -1), (rows, columns))[0]
    return image if channels == [3] else image[..., 0]


def _cut(spec: TokenSpec, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = _grid(spec)
    height, width, *_ = spec.shape
    if canvas.shape[:2] != (rows * height, columns * width):
        raise DataError(f"expected an image of {(rows * height, columns * width)}, got {canvas.shape[:2]}")
    patches: NDArray[np.uint8] = cut_patches(canvas.reshape(1, rows * height, columns * width, -1), (height, width))
    return patches.reshape(rows * columns, *spec.shape)
