"""Format 1: which objects a store is made of, and their Zarr v3 metadata."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import google_crc32c
import numpy as np

from exmem.codecs import PayloadCodec, get_codec
from exmem.errors import CodecError, SchemaError
from exmem.tokens import Schema, TokenSpec

__all__ = [
    "CATALOG_CHUNK_ROWS",
    "CATALOG_KEY",
    "LOCK_KEY",
    "Layout",
    "RowArray",
    "ShardedArray",
    "chunk_number",
    "to_bytes",
    "unsealed",
]

CATALOG_KEY = "catalog/zarr.json"
LOCK_KEY = "lock/zarr.json"  # a group of its own: some Zarr stores take no other keys
CATALOG_CHUNK_ROWS = 1024
_ROW_CHUNK_BYTES = 8192
_ROW_CHUNK_ROWS = 64
_PACKED_BYTES = 1024
_ZSTD_LEVEL = 9

_ROW_CODECS: list[dict[str, Any]] = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}},
    {"name": "crc32c"},
]


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """Write a metadata document in the one form that format 1 uses, with its checksum.

    Parameters
    ----------
    document : mapping
        Zarr v3 metadata: plain JSON values.

    Returns
    -------
    bytes
        UTF-8 without spaces; `attributes.exmem.checksum` is the CRC-32C of what it would be without the checksum.
    """
    attributes = dict(document["attributes"])
    own = {key: value for key, value in attributes.get("exmem", {}).items() if key != "checksum"}
    plain = dict(document) | {"attributes": attributes | {"exmem": own}}
    checksum = google_crc32c.value(_dumped(plain))
    return _dumped(plain | {"attributes": attributes | {"exmem": own | {"checksum": checksum}}})


def unsealed(data: bytes) -> dict[str, Any]:
    """Read what `to_bytes` wrote.

    Parameters
    ----------
    data : bytes
        A metadata object.

    Returns
    -------
    dict
        The document.

    Raises
    ------
    ValueError
        If it is no JSON or was changed since.
    """
    document: dict[str, Any] = json.loads(data)
    try:
        intact = to_bytes(document) == data
    except (KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise ValueError("the checksum does not match: it is damaged or was edited")
    return document


def chunk_number(key: str, prefix: str) -> int | None:
    """Return the first chunk coordinate of a key below `prefix`, None for other keys."""
    if not key.startswith(prefix):
        return None
    number = key[len(prefix) :].split(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 16 else None


def _dumped(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _array_document(
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    dtype: str,
    codecs: list[dict[str, Any]],
    attributes: Mapping[str, Any] | None = None,
    fill_value: int | float | bool = 0,
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": dict(attributes or {}),
    }


def _zero(dtype: str) -> int | float | bool:
    kind = np.dtype(dtype).kind
    return False if kind == "b" else 0.0 if kind == "f" else 0


@dataclasses.dataclass(frozen=True)
class RowArray:
    """An array with one row of fixed size per slot; a chunk holds many rows, compressed, and can be read by any Zarr.

    Parameters
    ----------
    path : str
        Path of the array in the group.
    shape : tuple of int
        Shape of one row.
    dtype : str
        dtype of the values.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in RAM."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk: up to 64, fewer when a row is large."""
        return max(1, min(_ROW_CHUNK_ROWS, _ROW_CHUNK_BYTES // self.row_bytes))

    def key(self, chunk: int) -> str:
        """Return the name of the object that holds a chunk."""
        return ".".join([f"{self.path}/c", str(chunk), *("0" for _ in self.shape)])

    def document(self, capacity: int) -> dict[str, Any]:
        """Return the Zarr metadata for `capacity` slots."""
        chunk = (self.chunk_rows, *self.shape)
        return _array_document((capacity, *self.shape), chunk, self.dtype, _ROW_CODECS, fill_value=_zero(self.dtype))


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedArray:
    """The values of one modality: an inner chunk is one exemplar, a shard is `shard_slots` of them.

    Parameters
    ----------
    modality : str
        Name of the modality.
    spec : TokenSpec
        How its tokens look.
    codec : PayloadCodec
        How its values become bytes.
    """

    modality: str
    spec: TokenSpec
    codec: PayloadCodec

    @property
    def path(self) -> str:
        """Path of the array in the group."""
        return f"{self.modality}/values"

    def key(self, shard: int) -> str:
        """Return the name of the object that holds a shard."""
        return ".".join([f"{self.path}/c", str(shard), "0", *("0" for _ in self.spec.shape)])

    def document(self, capacity: int, shard_slots: int) -> dict[str, Any]:
        """Return the Zarr metadata for `capacity` slots in shards of `shard_slots`."""
        token = (self.spec.positions, *self.spec.shape)
        sharding = {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, *token],
                "codecs": [
                    {"name": "exmem.payload", "configuration": {"codec": self.codec.get_config()}},
                    {"name": "crc32c"},
                ],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                "index_location": "end",
            },
        }
        dtype = str(self.spec.dtype)
        return _array_document((capacity, *token), (shard_slots, *token), dtype, [sharding], fill_value=_zero(dtype))


class Layout:
    """Where everything of a schema lies.

    Small lossless modalities (at most 1 KiB an exemplar: text) are stored as rows, many exemplars in one compressed
    chunk; all others as shards with one payload per exemplar.

    Parameters
    ----------
    schema : Schema
        The schema of the memory.
    codecs : mapping of str to PayloadCodec, optional
        Codecs as a store recorded them; made from the schema when left out.

    Raises
    ------
    CodecError
        If a codec is unknown or cannot take the tokens of its modality.
    """

    def __init__(self, schema: Schema, codecs: Mapping[str, PayloadCodec] | None = None) -> None:
        self.schema = schema
        self.keep: dict[str, RowArray] = {}
        self.packed: dict[str, RowArray] = {}
        self.sharded: dict[str, ShardedArray] = {}
        for name, spec in schema.modalities.items():
            codec = (codecs or {}).get(name) or _codec_of(name, spec)
            self.keep[name] = RowArray(f"{name}/keep", (-(-spec.positions // 8),), "uint8")
            if codec.codec_id == "exmem.lossless" and spec.positions * spec.token_bytes <= _PACKED_BYTES:
                self.packed[name] = RowArray(f"{name}/values", (spec.positions, *spec.shape), str(spec.dtype))
            else:
                self.sharded[name] = ShardedArray(name, spec, codec)
        self.extras = {
            name: RowArray(f"extras/{name}", tuple(spec.shape), str(spec.dtype)) for name, spec in schema.extras.items()
        }

    @property
    def rows(self) -> list[RowArray]:
        """All arrays with one row per slot."""
        return [*self.keep.values(), *self.packed.values(), *self.extras.values()]

    @property
    def most_tokens(self) -> list[int]:
        """Most tokens of each modality, in the order of the catalog's columns."""
        return [spec.positions for spec in self.schema.modalities.values()]

    @property
    def columns(self) -> list[str]:
        """Columns of the catalog."""
        return [
            "label",
            "priority",
            *(f"{name}.tokens" for name in self.schema.modalities),
            *(f"{name}.bytes" for name in self.sharded),
        ]

    def group_documents(self) -> dict[str, dict[str, Any]]:
        """Return the metadata of all groups below the root."""
        names = [*self.schema.modalities, *(["extras"] if self.extras else [])]
        return {f"{name}/zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": {}} for name in names}

    def array_documents(self, capacity: int, shard_slots: int) -> dict[str, dict[str, Any]]:
        """Return the metadata of all arrays but the catalog; `shard_slots` is 0 while it is not chosen."""
        documents = {f"{array.path}/zarr.json": array.document(capacity) for array in self.rows}
        for sharded in self.sharded.values():
            documents[f"{sharded.path}/zarr.json"] = sharded.document(capacity, max(shard_slots, 1))
        return documents

    def catalog_document(self, *, slots: int, generation: int, shard_slots: int, capacity: int) -> dict[str, Any]:
        """Return the metadata of the catalog: putting it is the commit, its first axis is the number of slots."""
        codecs = [{"name": "transpose", "configuration": {"order": [1, 0]}}, *_ROW_CODECS]
        attributes = {
            "exmem": {
                "columns": self.columns,
                "generation": generation,
                "shard_slots": shard_slots,
                "capacity": capacity,
            }
        }
        width = len(self.columns)
        return _array_document((slots, width), (CATALOG_CHUNK_ROWS, width), "int64", codecs, attributes, fill_value=-1)


def _codec_of(name: str, spec: TokenSpec) -> PayloadCodec:
    config = spec.codec
    if not isinstance(config, Mapping):  # TokenSpec has already turned a name into a mapping
        raise SchemaError(f"modality {name!r}: codec must be a mapping, got {config!r}")
    try:
        codec = get_codec(config, shape=spec.shape, dtype=spec.dtype)
    except CodecError as error:
        raise CodecError(f"modality {name!r}: {error}") from error
    if codec.shape != tuple(spec.shape) or codec.dtype != spec.dtype:
        raise CodecError(
            f"modality {name!r}: the codec is made for {codec.dtype} tokens of shape {codec.shape}, "
            f"the schema says {spec.dtype} of shape {tuple(spec.shape)}"
        )
    if spec.positions > codec.max_tokens:
        raise CodecError(
            f"modality {name!r}: {codec.codec_id} takes at most {codec.max_tokens} tokens of this shape, "
            f"the schema has {spec.positions} positions; use smaller tokens or another codec"
        )
    return codec
