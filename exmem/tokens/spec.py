"""What exemplars of a memory hold: modalities and extra fields."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from exmem.errors import SchemaError

__all__ = ["ExtraSpec", "Schema", "TokenSpec"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_KINDS = "biuf"  # bool, signed, unsigned, float: plain numbers without pointers
_MAX_TOKENS = 2**24
_MAX_TOKEN_BYTES = 2**28
_RESERVED = frozenset({"catalog", "extras", "label", "priority", "records"})


def _plain_dtype(dtype: DTypeLike, what: str) -> str:
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise SchemaError(f"{what}: dtype {dtype!r} is not a NumPy dtype; use a name such as 'uint8'") from error
    if found.kind not in _KINDS:
        raise SchemaError(f"{what}: dtype {found} holds no plain numbers; use bool, integers or floats")
    return found.name


def _plain_shape(shape: Sequence[int], what: str) -> tuple[int, ...]:
    try:
        sides = tuple(int(side) for side in shape)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{what}: shape {shape!r} is not a sequence of integers") from error
    if any(side < 1 for side in sides):
        raise SchemaError(f"{what}: shape {sides} has a side below 1")
    return sides


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSpec:
    """How the tokens of one modality look.

    Parameters
    ----------
    positions : int
        Length L of the dense sequence (image patches in row order, text positions, ...), 1 or more.
    shape : sequence of int
        Shape of one token's value: `(32, 32, 3)` for an image patch, `()` for a token id.
    dtype : dtype-like
        dtype of the values; bool, integers or floats.
    codec : str or mapping
        Payload codec: a name such as `"lossless"` or a configuration such as `{"id": "patch_jpeg", "quality": 75}`.

    Raises
    ------
    SchemaError
        If a value is out of range or a dtype holds no plain numbers.

    Examples
    --------
    >>> TokenSpec(positions=144, shape=(32, 32, 3), dtype="uint8", codec="patch_jpeg").token_bytes
    3072
    """

    positions: int
    shape: Sequence[int] = ()
    dtype: DTypeLike = "uint8"
    codec: str | Mapping[str, Any] = "lossless"

    def __post_init__(self) -> None:
        if isinstance(self.positions, bool) or not isinstance(self.positions, int | np.integer):
            raise SchemaError(f"positions must be an integer, got {self.positions!r}")
        if not 1 <= self.positions <= _MAX_TOKENS:
            raise SchemaError(f"positions must be in 1..{_MAX_TOKENS}, got {self.positions}")
        object.__setattr__(self, "positions", int(self.positions))
        object.__setattr__(self, "shape", _plain_shape(self.shape, "token"))
        object.__setattr__(self, "dtype", _plain_dtype(self.dtype, "token"))
        if isinstance(self.codec, str):
            object.__setattr__(self, "codec", {"id": self.codec})
        elif isinstance(self.codec, Mapping) and isinstance(self.codec.get("id"), str):
            object.__setattr__(self, "codec", dict(self.codec))
        else:
            raise SchemaError(f"codec must be a name or a mapping with an 'id', got {self.codec!r}")
        if self.token_bytes > _MAX_TOKEN_BYTES:
            raise SchemaError(f"a token has {self.token_bytes} bytes, more than {_MAX_TOKEN_BYTES}; use smaller tokens")

    @property
    def token_bytes(self) -> int:
        """Bytes of one decoded token."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values."""
        return {
            "positions": self.positions,
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "codec": dict(self.codec) if isinstance(self.codec, Mapping) else self.codec,
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
        if int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize > _MAX_TOKEN_BYTES:
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

    Raises
    ------
    SchemaError
        If there is no modality, or a name is not allowed or used twice.

    Examples
    --------
    >>> schema = Schema({"text": TokenSpec(positions=40, dtype="int32")}, extras={"task": ExtraSpec(dtype="int16")})
    >>> Schema.from_json(schema.to_json()) == schema
    True
    """

    modalities: Mapping[str, TokenSpec]
    extras: Mapping[str, ExtraSpec] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", dict(self.modalities))
        object.__setattr__(self, "extras", dict(self.extras))
        if not self.modalities:
            raise SchemaError("a schema needs at least one modality, got none")
        for name in [*self.modalities, *self.extras]:
            if not isinstance(name, str) or not _NAME.match(name) or name in _RESERVED:
                raise SchemaError(
                    f"name {name!r} is not allowed; use lower-case letters, digits and '_' (at most 32), "
                    f"and none of {sorted(_RESERVED)}"
                )
        for kind, found, wanted in (
            ("modality", self.modalities, TokenSpec),
            ("extra field", self.extras, ExtraSpec),
        ):
            for name, spec in found.items():
                if not isinstance(spec, wanted):
                    raise SchemaError(f"{kind} {name!r}: expected {wanted.__name__}, got {type(spec).__name__}")

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain JSON values."""
        return {
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

        Returns
        -------
        Schema
            The schema.

        Raises
        ------
        SchemaError
            If the document is not such a mapping.
        """
        try:
            if set(document) != {"modalities", "extras"}:
                raise SchemaError(f"a schema has the keys 'modalities' and 'extras', got {sorted(document)}")
            return cls(
                {name: TokenSpec(**spec) for name, spec in document["modalities"].items()},
                {name: ExtraSpec(**spec) for name, spec in document["extras"].items()},
            )
        except (TypeError, AttributeError) as error:
            raise SchemaError(f"not a schema: {error}; got {json.dumps(document, default=str)[:200]}") from error
