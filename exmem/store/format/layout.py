"""The arrays of an era, their Zarr v3 metadata, and the names of their chunks."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from exmem.codecs import PayloadCodec, codec_name, get_codec
from exmem.errors import CodecError, FormatError, SchemaError
from exmem.store.format.chunks import ZSTD_LEVEL
from exmem.store.format.documents import seal
from exmem.tokens import Schema, TokenSpec

__all__ = ["Field", "Layout", "ShardedArray", "parse_key"]

_PACKED_BYTES = 1024

_ROW_CODECS: list[dict[str, Any]] = [
    {"name": "transpose", "configuration": {"order": [1, 0]}},
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}},
    {"name": "crc32c"},
]


@dataclasses.dataclass(frozen=True)
class Field:
    """A value of fixed size in each record: bytes `start` to `start + num_bytes - 1` of an exemplar's row."""

    start: int
    num_bytes: int
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedArray:
    """The values of one modality: an inner chunk is one exemplar, a shard is one segment."""

    modality: str
    spec: TokenSpec
    codec: PayloadCodec


class Layout:
    """Where everything of a schema lies; codecs are made from it, or are those that a store recorded for it.

    Three kinds of arrays, all with one row per place: `catalog` (int64, what is known of an exemplar without reading
    it), `records` (uint8, its fields of fixed size: which positions were kept, extras, and the values of small lossless
    modalities, at most 1 KiB an exemplar) and one sharded array of payloads for each other modality.
    """

    def __init__(self, schema: Schema, codecs: Mapping[str, PayloadCodec] | None = None) -> None:
        self.schema = schema
        self.keep: dict[str, Field] = {}
        self.packed: dict[str, Field] = {}
        self.extras: dict[str, Field] = {}
        self.sharded: dict[str, ShardedArray] = {}
        self.record_bytes: int = 0
        for name, spec in schema.modalities.items():
            codec = _recorded(name, spec, codecs[name]) if codecs and name in codecs else _codec_of(name, spec)
            self.keep[name] = self._field((-(-spec.positions // 8),), "uint8")
            if codec.codec_id == "exmem.lossless" and spec.positions * spec.token_bytes <= _PACKED_BYTES:
                self.packed[name] = self._field((spec.positions, *spec.shape), str(spec.dtype))
            else:
                self.sharded[name] = ShardedArray(name, spec, codec)
        for name, extra in schema.extras.items():
            self.extras[name] = self._field(tuple(extra.shape), str(extra.dtype))
        modalities = list(schema.modalities)
        self.columns: list[str] = ["slot", "generation", "label", "priority"]
        self.first_count: int = len(self.columns)
        self.columns += [f"{name}.tokens" for name in modalities]
        self.first_length: int = len(self.columns)
        self.columns += [f"{name}.bytes" for name in self.sharded]
        self.most_tokens: list[int] = [spec.positions for spec in schema.modalities.values()]

    def _field(self, shape: tuple[int, ...], dtype: str) -> Field:
        field = Field(self.record_bytes, math.prod(shape) * np.dtype(dtype).itemsize, shape, dtype)
        self.record_bytes += field.num_bytes
        return field

    @property
    def plain_bytes(self) -> int:
        """Bytes of an exemplar's rows in the catalog and the records before compression."""
        return 8 * len(self.columns) + self.record_bytes

    def catalog_key(self, era: int, segment: int) -> str:
        """Return the name of a chunk of the catalog."""
        return f"e{era}/catalog/c.{segment}.0"

    def records_key(self, era: int, segment: int) -> str:
        """Return the name of a chunk of records."""
        return f"e{era}/records/c.{segment}.0"

    def shard_key(self, era: int, segment: int, modality: str) -> str:
        """Return the name of a shard."""
        zeros = ".0" * (1 + len(self.schema.modalities[modality].shape))
        return f"e{era}/{modality}/c.{segment}{zeros}"

    def segment_keys(self, era: int, segment: int) -> list[str]:
        """Return the names that the objects of a segment can have, the catalog's last."""
        return [
            *(self.shard_key(era, segment, name) for name in self.sharded),
            self.records_key(era, segment),
            self.catalog_key(era, segment),
        ]

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a layout lives as long as its store
    def era_sizes(self, era: int, rows: int, length: int) -> tuple[int, int]:
        """Return the bytes of the metadata of an era: all of it, and the largest object."""
        sizes = [len(data) for data in self.era_documents(era, rows, length).values()]
        return sum(sizes), max(sizes)

    def era_documents(self, era: int, rows: int, length: int) -> dict[str, bytes]:
        """Return the metadata of an era: `rows` places a segment, arrays of `length` places."""
        columns = {"columns": self.columns}
        documents: dict[str, dict[str, Any]] = {
            f"e{era}/zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": {"exmem": {"rows": rows}}},
            f"e{era}/catalog/zarr.json": _array(
                (length, len(self.columns)), (rows, len(self.columns)), "int64", _ROW_CODECS, -1, columns
            ),
            f"e{era}/records/zarr.json": _array(
                (length, self.record_bytes),
                (rows, self.record_bytes),
                "uint8",
                _ROW_CODECS,
                0,
                {"fields": self._described_fields()},
            ),
        }
        for name, array in self.sharded.items():
            token = (array.spec.positions, *array.spec.shape)
            documents[f"e{era}/{name}/zarr.json"] = _array(
                (length, *token), (rows, *token), str(array.spec.dtype), [_sharding(token, array.codec)], 0, {}
            )
        return {key: seal(document) for key, document in documents.items()}

    def _described_fields(self) -> dict[str, list[Any]]:
        named = {f"{name}.keep": field for name, field in self.keep.items()}
        named |= {f"{name}.values": field for name, field in self.packed.items()}
        named |= {f"extras.{name}": field for name, field in self.extras.items()}
        return {name: [field.start, field.dtype, list(field.shape)] for name, field in named.items()}


def parse_key(key: str) -> tuple[int, str, int | None] | None:
    """Return era, array and segment of a key below an era (no segment for metadata), None for other keys."""
    era, _, rest = key.partition("/")
    if not era.startswith("e") or not _is_number(era[1:]) or not rest:
        return None
    array, _, chunk = rest.partition("/")
    if not chunk.startswith("c."):
        return int(era[1:]), array, None
    segment = chunk.split(".")[1]
    return (int(era[1:]), array, int(segment)) if _is_number(segment) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16 and (text == "0" or text[0] != "0")


def _sharding(token: tuple[int, ...], codec: PayloadCodec) -> dict[str, Any]:
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, *token],
            "codecs": [
                {"name": "exmem.payload", "configuration": {"codec": codec.get_config()}},
                {"name": "crc32c"},
            ],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        },
    }


def _array(
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    dtype: str,
    codecs: list[dict[str, Any]],
    fill: int,
    attributes: Mapping[str, Any],
) -> dict[str, Any]:
    kind = np.dtype(dtype).kind
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": bool(fill) if kind == "b" else float(fill) if kind == "f" else fill,
        "codecs": codecs,
        "attributes": {"exmem": dict(attributes)},
    }


def _codec_of(name: str, spec: TokenSpec) -> PayloadCodec:
    config = spec.codec
    if not isinstance(config, Mapping):  # TokenSpec has already turned a name into a mapping
        raise SchemaError(f"modality {name!r}: codec must be a mapping, got {config!r}")
    try:
        codec = get_codec(config, shape=spec.shape, dtype=spec.dtype)
    except CodecError as error:
        raise CodecError(f"modality {name!r}: {error}") from error
    _check_tokens(name, spec, codec)
    return codec


def _recorded(name: str, spec: TokenSpec, codec: PayloadCodec) -> PayloadCodec:
    wanted = str(dict(spec.codec).get("id") if isinstance(spec.codec, Mapping) else spec.codec)
    if codec.codec_id != codec_name(wanted):
        raise FormatError(
            f"modality {name!r}: the schema names the codec {wanted!r}, the array was written with {codec.codec_id!r}; "
            "its metadata was edited"
        )
    try:
        _check_tokens(name, spec, codec)
    except CodecError as error:
        raise FormatError(f"{error}; its metadata was edited") from error
    return codec


def _check_tokens(name: str, spec: TokenSpec, codec: PayloadCodec) -> None:
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
