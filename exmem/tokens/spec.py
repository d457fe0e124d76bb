"""What exemplars of a memory hold: modalities and extra fields."""

import copy
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from exmem.errors import SchemaError
from exmem.tokens.checks import mapping_of, plain_json, shown, whole_number
from exmem.tokens.frozen import ReadOnlyDict

__all__ = ["ExtraSpec", "Schema", "TokenSpec"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
# Plain numbers that Zarr has data types for; NumPy's longdouble is another one on each machine.
_DTYPES = frozenset({"bool", "float16", "float32", "float64"}) | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_MAX_TOKENS = 2**24
_MAX_TOKEN_BYTES = 2**28
_MAX_SIDES = 30  # NumPy 1 has 32 axes, and a batch has two of its own
_RESERVED = frozenset({"catalog", "extras", "label", "priority", "records"})


def _plain_dtype(dtype: DTypeLike, what: str) -> str:
    try:
        if dtype is None:  # which NumPy takes for float64
            raise TypeError
        numpy_dtype = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError, RuntimeError) as error:
        raise SchemaError(f"{what}: dtype {shown(dtype)} is not a NumPy dtype; use a name such as 'uint8'") from error
    if numpy_dtype.name not in _DTYPES:
        raise SchemaError(f"{what}: dtype {numpy_dtype} is not stored; choose one of {sorted(_DTYPES)}")
    return numpy_dtype.name


def _plain_shape(shape: Sequence[int], what: str) -> tuple[int, ...]:
    try:
        if isinstance(shape, str | bytes | Mapping | Set) or getattr(shape, "ndim", 1) != 1:
            raise TypeError
        given = list(shape)
    except TypeError as error:
        raise SchemaError(f"{what}: shape {shown(shape)} is not a sequence of integers") from error
    if len(given) > _MAX_SIDES:
        raise SchemaError(f"{what}: expected a shape of at most {_MAX_SIDES} sides, got {len(given)}")
    return tuple(whole_number(side, f"{what}: each side of shape", least=1, most=_MAX_TOKEN_BYTES) for side in given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSpec:
    """How the tokens of one modality look.

    Parameters
    ----------
    positions : int
        Length L of the dense sequence (image patches in row order, text positions, ...), 1 or more; may be left out
        beside a grid.
    shape : sequence of int
        Shape of one token's value: `(32, 32, 3)` for an image patch, `()` for a token id.
    dtype : dtype-like
        dtype of the values; bool, integers or floats.
    codec : str or mapping
        Payload codec: a name such as `"lossless"` or a configuration such as `{"id": "patch_jpeg", "quality": 75}`.
    grid : tuple of int, optional
        Rows and columns of patches, where the positions are those of an image that is no square.

    Raises
    ------
    SchemaError
        If a value is out of range, a dtype holds no plain numbers, or the grid has not as many cells as positions.

    Examples
    --------
    >>> TokenSpec(positions=144, shape=(32, 32, 3), dtype="uint8", codec="patch_jpeg").token_bytes
    3072
    """

    positions: int = 0
    shape: Sequence[int] = ()
    dtype: DTypeLike = "uint8"
    codec: str | Mapping[str, Any] = "lossless"
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.grid is not None:
            sides = _plain_shape(self.grid, "grid")
            cells = math.prod(sides)
            if len(sides) != 2 or self.positions not in {0, cells}:
                raise SchemaError(
                    f"grid must be rows and columns of all {shown(self.positions)} positions, got {shown(self.grid)}"
                )
            object.__setattr__(self, "grid", sides)
            object.__setattr__(self, "positions", cells)
        object.__setattr__(self, "positions", whole_number(self.positions, "positions", least=1, most=_MAX_TOKENS))
        object.__setattr__(self, "shape", _plain_shape(self.shape, "token"))
        object.__setattr__(self, "dtype", _plain_dtype(self.dtype, "token"))
        if isinstance(self.codec, str):
            object.__setattr__(self, "codec", ReadOnlyDict(id=self.codec))
        elif isinstance(self.codec, Mapping) and isinstance(self.codec.get("id"), str):
            object.__setattr__(self, "codec", ReadOnlyDict(plain_json(dict(self.codec), "codec")))
        else:
            raise SchemaError(f"codec must be a name or a mapping with an 'id', got {shown(self.codec)}")
        if self.token_bytes > _MAX_TOKEN_BYTES:
            raise SchemaError(f"a token has {self.token_bytes} bytes, more than {_MAX_TOKEN_BYTES}; use smaller tokens")

    @property
    def token_bytes(self) -> int:
        """Bytes of one decoded token."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def image_grid(self) -> tuple[int, int]:
        """Return rows and columns of patches: the grid, or a square.

        Raises
        ------
        SchemaError
            If there is no grid and the positions form no square.
        """
        side = math.isqrt(self.positions)
        if self.grid is None and side * side != self.positions:
            raise SchemaError(f"{self.positions} patches form no square; give the TokenSpec a grid=(rows, columns)")
        return self.grid or (side, side)

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values."""
        return {
            **({} if self.grid is None else {"grid": list(self.grid)}),
            "positions": self.positions,
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "codec": copy.deepcopy(dict(self.codec)) if isinstance(self.codec, Mapping) else self.codec,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtraSpec:
    """A named field of fixed size that goes with each exemplar (logits, embedding, task id).

    Parameters
    ----------
    shape : sequence of int
        Shape of one value; `()` for a scalar.
    dtype : dtype-like
        dtype of the value; bool, integers or floats.

    Raises
    ------
    SchemaError
        If a side is below 1 or the dtype holds no plain numbers.
    """

    shape: Sequence[int] = ()
    dtype: DTypeLike = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _plain_shape(self.shape, "extra field"))
        object.__setattr__(self, "dtype", _plain_dtype(self.dtype, "extra field"))
        if math.prod(self.shape) * np.dtype(self.dtype).itemsize > _MAX_TOKEN_BYTES:
            raise SchemaError(f"an extra field of shape {self.shape} is larger than {_MAX_TOKEN_BYTES} bytes")

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values."""
        return {"shape": list(self.shape), "dtype": str(self.dtype)}


@dataclasses.dataclass(frozen=True)
class Schema:
    """What every exemplar of one memory holds: modalities and extra fields.

    Parameters
    ----------
    modalities : mapping of str to TokenSpec
        One or more modalities; a name is lower-case letters, digits and `_`, at most 32 characters.
    extras : mapping of str to ExtraSpec
        Fields of fixed size beside the tokens.
    recipe : mapping, optional
        How the exemplars are made and restored, as plain JSON values (see `exmem.recipes`); kept, not looked at.

    Raises
    ------
    SchemaError
        If there is no modality, a name is not allowed, or the recipe is no JSON.

    Examples
    --------
    >>> schema = Schema({"text": TokenSpec(positions=40, dtype="int32")}, extras={"task": ExtraSpec(dtype="int16")})
    >>> Schema.from_json(schema.to_json()) == schema
    True
    """

    modalities: Mapping[str, TokenSpec]
    extras: Mapping[str, ExtraSpec] = dataclasses.field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.recipe is not None:
            given = dict(mapping_of(self.recipe, "recipe"))
            object.__setattr__(self, "recipe", ReadOnlyDict(plain_json(given, "recipe")))
        for what in ("modalities", "extras"):
            object.__setattr__(self, what, ReadOnlyDict(mapping_of(getattr(self, what), what)))
        if not self.modalities:
            raise SchemaError("a schema needs at least one modality, got none")
        for name in [*self.modalities, *self.extras]:
            if not isinstance(name, str) or not _NAME.match(name) or name in _RESERVED:
                raise SchemaError(
                    f"name {shown(name)} is not allowed; use lower-case letters, digits and '_' (at most 32), "
                    f"and none of {sorted(_RESERVED)}"
                )
        for kind, specs, wanted in (
            ("modality", self.modalities, TokenSpec),
            ("extra field", self.extras, ExtraSpec),
        ):
            for name, spec in specs.items():
                if not isinstance(spec, wanted):
                    raise SchemaError(f"{kind} {name!r}: expected {wanted.__name__}, got {type(spec).__name__}")

    @classmethod
    def images(
        cls,
        *,
        size: int | tuple[int, int],
        patch: int | None = None,
        codec: str | Mapping[str, Any] = "patch_jpeg",
        text: int = 0,
        extras: Mapping[str, ExtraSpec] | None = None,
    ) -> "Schema":
        """Describe images of one size, as patches or whole, with or without texts.

        Parameters
        ----------
        size : int or tuple of int
            Side of square images in pixels, or height and width.
        patch : int, optional
            Side of a patch, which divides both; the whole image is one token when left out.
        codec : str or mapping
            Payload codec of the pixels.
        text : int
            Most text tokens, held as int32 ids; 0 for images without texts.
        extras : mapping of str to ExtraSpec, optional
            Fields of fixed size beside the tokens.

        Returns
        -------
        Schema
            The modality `image`, and `text` if there are texts.

        Raises
        ------
        SchemaError
            If the size or the patch is none, or the patch does not divide a side.

        Examples
        --------
        >>> spec = Schema.images(size=(224, 160), patch=16, text=32).modalities["image"]
        >>> spec.positions, spec.grid, spec.shape
        (140, (14, 10), (16, 16, 3))
        """
        sides = _plain_shape(size if isinstance(size, Sequence) else (size, size), "size of an image")
        if len(sides) != 2:
            raise SchemaError(f"size must be a side in pixels, or height and width, got {shown(size)}")
        height, width = sides
        down, across = sides if patch is None else 2 * (whole_number(patch, "patch", least=1),)
        if height % down or width % across:
            raise SchemaError(f"patch {patch} does not divide images of {height} x {width}; choose one that does")
        image = TokenSpec(grid=(height // down, width // across), shape=(down, across, 3), codec=codec)
        texts = {"text": TokenSpec(positions=text, dtype="int32")} if text else {}
        return cls({"image": image, **texts}, extras or {})

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain JSON values."""
        return {
            **({} if self.recipe is None else {"recipe": copy.deepcopy(dict(self.recipe))}),
            "modalities": {name: spec.to_json() for name, spec in self.modalities.items()},
            "extras": {name: spec.to_json() for name, spec in self.extras.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Schema":
        """Build a schema from what `to_json` returned.

        Parameters
        ----------
        document : mapping
            Plain JSON values; unknown keys are refused.

        Raises
        ------
        SchemaError
            If the document is not such a mapping.
        """
        try:
            if not {"modalities", "extras"} <= set(document) <= {"modalities", "extras", "recipe"}:
                raise SchemaError(
                    f"a schema has the keys 'modalities' and 'extras', and may have 'recipe', got {sorted(document)}"
                )
            return cls(
                {name: TokenSpec(**spec) for name, spec in document["modalities"].items()},
                {name: ExtraSpec(**spec) for name, spec in document["extras"].items()},
                document.get("recipe"),
            )
        except (TypeError, AttributeError) as error:
            raise SchemaError(f"not a schema: {error}; got {shown(document)}") from error
