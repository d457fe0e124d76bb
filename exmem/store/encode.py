"""From exemplars to what will be stored: validated once, here, and encoded."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.codecs import PayloadCodec
from exmem.errors import CodecError, InvalidExemplarError
from exmem.store.format.chunks import append_crc
from exmem.store.format.layout import Field, Layout
from exmem.store.segments import Rows
from exmem.store.threads import Threads
from exmem.tokens import Exemplar, TokenSet, TokenSpec
from exmem.tokens.checks import fitting, label_of, real_number, rows_text, shown

__all__ = [
    "check_tokens",
    "checked_label",
    "checked_priority",
    "encode_exemplars",
    "encode_extra",
    "encode_payload",
    "write_field",
]


def encode_exemplars(exemplars: Sequence[Exemplar], layout: Layout, *, threads: Threads) -> Rows:
    """Validate and encode exemplars, without slots yet; InvalidExemplarError says which does not fit and why."""
    records = np.zeros((len(exemplars), layout.record_bytes), np.uint8)
    catalog = np.full((len(exemplars), len(layout.columns)), -1, np.int64)
    priorities = np.zeros(len(exemplars))
    for index, exemplar in enumerate(exemplars):
        where = f"exemplar {index}"
        _check_names(where, exemplar, layout)
        catalog[index, 2] = checked_label(exemplar.label, where)
        priorities[index] = checked_priority(exemplar.priority, where)
        for number, (name, spec) in enumerate(layout.schema.modalities.items()):
            tokens = exemplar.tokens[name]
            check_tokens(f"{where}, {name!r}", tokens, spec)
            catalog[index, layout.first_count + number] = len(tokens)
            flags = np.zeros(spec.positions, np.bool_)
            flags[tokens.positions] = True
            write_field(records[index], layout.keep[name], np.packbits(flags, bitorder="little"))
            if name in layout.packed:
                write_field(records[index], layout.packed[name], tokens.values)
        for name, field in layout.extras.items():
            write_field(
                records[index], field, encode_extra(exemplar.extras[name], field, f"{where}, extra field {name!r}")
            )
    catalog[:, 3] = priorities.view(np.int64)
    pieces: dict[str, list[bytes]] = {name: [b""] * len(exemplars) for name in layout.sharded}

    def work(indices: Sequence[int]) -> None:
        for index in indices:
            for name, array in layout.sharded.items():
                tokens = exemplars[index].tokens[name]
                if len(tokens):
                    pieces[name][index] = encode_payload(array.codec, tokens.values, f"exemplar {index}, {name!r}")

    threads.run(work, len(exemplars))
    for number, name in enumerate(layout.sharded, layout.first_length):
        catalog[:, number] = [max(0, len(piece) - len(append_crc(b""))) for piece in pieces[name]]
    return Rows(layout, catalog, records, pieces)


def encode_payload(codec: PayloadCodec, values: NDArray[Any], where: str) -> bytes:
    """Encode the values of an exemplar, with their checksum; InvalidExemplarError if the codec cannot."""
    try:
        payload = codec.encode(values)
    except CodecError as error:
        raise InvalidExemplarError(f"{where}: {error}") from error
    if not isinstance(payload, bytes):
        raise InvalidExemplarError(
            f"{where}: expected bytes of the codec {codec.codec_id!r}, got {type(payload).__name__}; let its encode "
            "return them"
        )
    return append_crc(payload)


def checked_label(label: Any, where: str) -> int:
    """Return a class as an integer of 64 bits; NumPy and torch scalars are taken, bools and floats are not."""
    return label_of(label, f"{where}: label", error=InvalidExemplarError)


def checked_priority(priority: Any, where: str) -> float:
    """Return a priority as a float that is not NaN."""
    return real_number(priority, f"{where}: priority", error=InvalidExemplarError)


def encode_extra(value: ArrayLike, field: Field, where: str) -> NDArray[Any]:
    """Return the value of an extra field in its dtype; InvalidExemplarError if that cannot hold it."""
    return fitting(value, field.dtype, field.shape, where, error=InvalidExemplarError)


def write_field(record: NDArray[np.uint8], field: Field, values: NDArray[Any]) -> None:
    """Write values into their field of a record."""
    plain = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    record[field.start : field.start + len(plain)] = np.frombuffer(plain, np.uint8)


def _check_names(where: str, exemplar: Exemplar, layout: Layout) -> None:
    if not isinstance(exemplar, Exemplar):
        raise InvalidExemplarError(f"{where}: expected an Exemplar, got {type(exemplar).__name__}")
    wanted: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "modalities": (exemplar.tokens, layout.schema.modalities),
        "extra fields": (exemplar.extras, layout.schema.extras),
    }
    for what, (given, named) in wanted.items():
        if given.keys() != named.keys():
            raise InvalidExemplarError(
                f"{where}: expected the {what} {sorted(named)}, got {shown(sorted(map(str, given)))}; give each one "
                "that the schema names (an empty TokenSet for a modality without tokens) and no other"
            )


def check_tokens(where: str, tokens: TokenSet, spec: TokenSpec) -> None:
    """Refuse tokens that are none of this modality."""
    if not isinstance(tokens, TokenSet):
        raise InvalidExemplarError(f"{where}: expected a TokenSet, got {type(tokens).__name__}")
    if len(tokens) and int(tokens.positions[-1]) >= spec.positions:
        raise InvalidExemplarError(f"{where}: position {tokens.positions[-1]} is outside 0..{spec.positions - 1}")
    values = tokens.values
    if values.shape[1:] != tuple(spec.shape) or values.dtype.name != spec.dtype:
        raise InvalidExemplarError(
            f"{where}: expected values {rows_text(spec.shape)} of {spec.dtype}, "
            f"got {values.shape} of {values.dtype}; convert them before adding"
        )
