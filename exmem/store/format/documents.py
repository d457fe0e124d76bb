"""Metadata documents: Zarr v3 JSON with a checksum over what exmem wrote, whatever other tools add."""

import json
from collections.abc import Mapping
from typing import Any

import google_crc32c

from exmem.errors import CorruptMetadataError

__all__ = ["CONSOLIDATED", "FROM_A_COPY", "broken", "own_attributes", "says_the_same", "seal", "unseal"]

CONSOLIDATED = "consolidated_metadata"  # what `zarr.consolidate_metadata` adds to the root
FROM_A_COPY = "put it back from a copy"  # the remedy for what nothing else holds

# Zarr v3 keys that exmem writes; the checksum covers them and `attributes.exmem`, nothing that others add.
_COVERED = (
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
)


def seal(document: Mapping[str, Any]) -> bytes:
    """Return the one form in which format 1 writes a document: UTF-8 without spaces, with its checksum.

    `attributes.exmem.checksum` is the CRC-32C, in eight hexadecimal digits, of the covered keys and `attributes.exmem`,
    keys sorted.
    """
    attributes = dict(document.get("attributes", {}))
    of_exmem = {key: value for key, value in attributes.get("exmem", {}).items() if key != "checksum"}
    sealed = {"attributes": attributes | {"exmem": of_exmem | {"checksum": _checksum(document, of_exmem)}}}
    return _dumped(dict(document) | sealed)


def unseal(data: bytes) -> dict[str, Any]:
    """Return a document; ValueError when it is no JSON or what exmem wrote in it was changed."""
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    try:
        of_exmem = dict(document["attributes"]["exmem"])
        intact = of_exmem.pop("checksum") == _checksum(document, of_exmem)
    except (KeyError, TypeError, ValueError, AttributeError):
        intact = False
    if not intact:
        raise ValueError("the checksum does not match: it is damaged or was edited")
    intact_document: dict[str, Any] = document
    return intact_document


def says_the_same(data: bytes | None, expected: bytes) -> bool:
    """Return whether a document says what exmem would write, whatever other tools added to it."""
    try:
        return data is not None and own_attributes(data)["checksum"] == own_attributes(expected)["checksum"]
    except ValueError:
        return False


def broken(location: str, key: str, error: Exception, *, remedy: str = "") -> CorruptMetadataError:
    """Return the error that names a document which cannot be read, and why."""
    what = f"{location}: {key} is broken ({type(error).__name__}: {error})"
    return CorruptMetadataError(f"{what}; {remedy}" if remedy else what)


def own_attributes(data: bytes) -> dict[str, Any]:
    """Return what exmem wrote under `attributes.exmem`; ValueError as `unseal`."""
    attributes: dict[str, Any] = unseal(data)["attributes"]["exmem"]
    return attributes


def _checksum(document: Mapping[str, Any], of_exmem: Mapping[str, Any]) -> str:
    covered = {key: document[key] for key in _COVERED if key in document}
    # Always as long: how many bytes a document takes must not hang on its checksum.
    return f"{google_crc32c.value(_dumped(covered | {'exmem': of_exmem}, sort_keys=True)):08x}"


def _dumped(document: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False, sort_keys=sort_keys)
    return text.encode()
