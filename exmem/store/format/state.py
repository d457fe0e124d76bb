"""The document of the state, `state/zarr.json`: putting it is the commit."""

import dataclasses
import functools
import operator
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.store.format.documents import FROM_A_COPY, broken, own_attributes, seal
from exmem.store.format.numbers import (
    dead_token,
    from_text,
    leb128,
    pack_dead,
    pack_increasing,
    text_bytes,
    to_text,
    unpack_dead,
    unpack_increasing,
)

__all__ = ["MOST_STATE_BYTES", "STATE_KEY", "Era", "State", "new_id", "parse_state"]

STATE_KEY = "state/zarr.json"
MOST_STATE_BYTES = 2**28  # what a reader fetches at most
_MOST_ERAS = 2**19  # of a row, one number of 64 bits says where it lies: era, segment, place
_MOST_SEGMENTS = 2**32
_WANTED_BYTES = 112  # an ordinary `wanted`: the target and one number
_STREAM_BYTES = 48  # what the numbers of a stream's state can grow by
_NONE = np.zeros(0, np.int64)


def new_id() -> str:
    """Return what no other store has as its `store_id`."""
    return secrets.token_hex(8)


@dataclasses.dataclass(frozen=True)
class Era:
    """Segments of `rows` places each; arrays of `length` places; `given` segment numbers given out so far.

    The segment `open` (-1: none) holds `open_rows` committed rows. `live` are the segments that hold exemplars, `dead`
    their rows that no longer do, as bits; `tokens` are the same as they are written.
    """

    rows: int
    length: int
    given: int = 0
    open: int = -1
    open_rows: int = 0
    live: NDArray[np.int64] = dataclasses.field(default_factory=lambda: _NONE)
    dead: Mapping[int, int] = dataclasses.field(default_factory=dict)
    tokens: Mapping[int, bytes] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def packed_live(self) -> bytes:
        """The live segments as they are written, before base64."""
        return pack_increasing(self.live)

    @functools.cached_property
    def packed_dead(self) -> bytes:
        """The dead rows as they are written, before base64."""
        return pack_dead(self.tokens)

    @functools.cached_property
    def number_bytes(self) -> int:
        """What the numbers of the live segments take as LEB128, one by one."""
        longer = (len(self.live) - int(np.searchsorted(self.live, 1 << bits)) for bits in (7, 14, 21, 28))
        return len(self.live) + sum(longer)

    def with_dead(self, changes: Mapping[int, int]) -> "Era":
        """Return this era with other dead rows in some segments; 0 where none is dead."""
        dead, tokens = dict(self.dead), dict(self.tokens)
        for segment, bits in changes.items():
            if bits:
                dead[segment], tokens[segment] = bits, dead_token(segment, bits, self.rows)
            else:
                dead.pop(segment, None)
                tokens.pop(segment, None)
        return dataclasses.replace(self, dead=dead, tokens=tokens)

    def with_segments(self, come: NDArray[np.int64], gone: NDArray[np.int64]) -> "Era":
        """Return this era with more live segments and without some."""
        live = self.live if len(gone) == 0 else self.live[~np.isin(self.live, gone)]
        era = dataclasses.replace(self, live=np.sort(np.concatenate([live, come])) if len(come) else live)
        return era.with_dead(dict.fromkeys(gone.tolist(), 0)) if len(gone) else era


@dataclasses.dataclass(frozen=True)
class State:
    """All that is committed beside the exemplars themselves.

    `generation` counts changes of what is held, `revision` every put of the document. `target` is the size that
    segments are made for. `wanted` is what a resize or a charge under way is to lead to: `target` and what changes of
    `max_bytes`, `charges` and `max_exemplars`. `reservoir` is the state of a stream.
    """

    store_id: str
    max_bytes: int
    target: int
    eras: Mapping[int, Era]
    generation: int = 0
    revision: int = 0
    next_slot: int = 0
    charges: Mapping[str, int] = dataclasses.field(default_factory=dict)
    max_exemplars: int | None = None
    wanted: Mapping[str, Any] | None = None
    reservoir: Mapping[str, Any] | None = None

    @functools.cached_property
    def budget_bytes(self) -> int:
        """Bytes for the objects of the store and the reserve: the budget without the charges."""
        return self.max_bytes - sum(self.charges.values())

    @functools.cached_property
    def era(self) -> int:
        """Number of the era that is written."""
        return max(self.eras)

    def with_era(self, number: int, era: Era) -> "State":
        """Return this state with one era replaced or added."""
        return dataclasses.replace(self, eras={**self.eras, number: era})

    @functools.cached_property
    def document(self) -> bytes:
        """The document as it is put."""
        return _sealed(self)

    def most_bytes(self, new_segments: int = 0, staged: Mapping[int, Sequence[int]] | None = None) -> int:
        """Return the most bytes of the document after evictions, cleanings, and with more segments.

        Those that are `staged` by era, whose numbers are given out already, and `new_segments` in the last era.
        """
        last = self.eras[self.era]
        most = len(self.document)
        most += sum(19 - len(str(number)) for number in (self.generation, self.revision, self.next_slot))
        most += sum(12 - len(str(number)) for number in (last.length, last.given, last.open, last.open_rows))
        most += (_WANTED_BYTES if self.wanted is None else 0) + (_STREAM_BYTES if self.reservoir is not None else 0)
        for number, era in self.eras.items():
            staged_here = (staged or {}).get(number, ())
            more = [len(leb128(segment)) for segment in staged_here]
            if era is last:
                more += [len(leb128(last.given + len(staged_here) + new_segments))] * new_segments
            most -= text_bytes(len(era.packed_live)) + text_bytes(len(era.packed_dead))
            most += text_bytes(len(era.packed_live) + sum(more) + len(more))
            if era.rows > 1:
                segments = len(era.live) + len(more)
                most += text_bytes(era.number_bytes + sum(more) + segments * (1 + -(-era.rows // 8)))
        return most


def parse_state(data: bytes, location: str) -> State:
    """Read the document; CorruptMetadataError if it is damaged."""
    try:
        described = own_attributes(data)
        eras = {_era_number(text): _parse_era(entry) for text, entry in described["eras"].items()}
        reservoir, wanted, most = described.get("reservoir"), described.get("wanted"), described.get("max_exemplars")
        state = State(
            store_id=str(described["id"]),
            max_bytes=_number(described["max_bytes"]),
            target=_number(described["target"]),
            eras=eras,
            generation=_number(described["generation"]),
            revision=_number(described["revision"]),
            next_slot=_number(described["next_slot"]),
            charges=_sizes(described["charges"]),
            max_exemplars=None if most is None else _number(most),
            wanted=None if wanted is None else _parse_wanted(wanted),
            reservoir=None if reservoir is None else dict(reservoir),
        )
        if not eras:
            raise ValueError("it has no era")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise broken(location, STATE_KEY, error, remedy=FROM_A_COPY) from error
    return state


def _number(value: Any) -> int:
    number = operator.index(value)
    if not 0 <= number < 2**63:
        raise ValueError(f"{number} is outside 0..{2**63 - 1}")
    return number


def _era_number(text: str) -> int:
    number = int(text)
    if str(number) != text or not 0 <= number < _MOST_ERAS:
        raise ValueError(f"an era has the number {text[:40]!r}")
    return number


def _sizes(described: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): _number(size) for name, size in described.items()}


def _parse_wanted(described: Mapping[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {"target": _number(described["target"])}
    for name, value in described.items():
        if name in {"target", "max_bytes"}:
            wanted[name] = _number(value)
        elif name == "charges":
            wanted[name] = _sizes(value)
        elif name == "max_exemplars":
            wanted[name] = None if value is None else _number(value)
        else:
            raise ValueError(f"unknown key {name!r} of what is wanted")
    return wanted


def _sealed(state: State) -> bytes:
    eras = {}
    for number, era in sorted(state.eras.items()):
        entry: dict[str, Any] = {"rows": era.rows, "length": era.length, "given": era.given}
        entry |= {"open": era.open, "open_rows": era.open_rows}
        entry |= {"live": to_text(era.packed_live), "dead": to_text(era.packed_dead)}
        eras[str(number)] = entry
    described: dict[str, Any] = {
        "id": state.store_id,
        "generation": state.generation,
        "revision": state.revision,
        "next_slot": state.next_slot,
        "max_bytes": state.max_bytes,
        "charges": dict(state.charges),
        "target": state.target,
        "eras": eras,
    }
    for name in ("max_exemplars", "wanted", "reservoir"):
        value = getattr(state, name)
        if value is not None:
            described[name] = dict(value) if isinstance(value, Mapping) else value
    return seal({"zarr_format": 3, "node_type": "group", "attributes": {"exmem": described}})


def _parse_era(entry: Mapping[str, Any]) -> Era:
    rows, length, given = _number(entry["rows"]), _number(entry["length"]), _number(entry["given"])
    opened, open_rows = operator.index(entry["open"]), _number(entry["open_rows"])
    live = unpack_increasing(from_text(entry["live"]))
    dead = unpack_dead(from_text(entry["dead"]), rows)
    if not 1 <= rows <= 256 or not 0 <= given < _MOST_SEGMENTS or not 0 <= open_rows <= rows:
        raise ValueError(f"an era has {rows} rows a segment, {given} segments, {open_rows} open rows")
    known = set(live.tolist())
    if opened < 0 and (opened != -1 or open_rows):
        raise ValueError("an era has rows in an open segment that is none")
    if (len(live) and int(live[-1]) >= given) or (opened >= 0 and opened not in known) or not known.issuperset(dead):
        raise ValueError("an era names segments that were never given out")
    tokens = {segment: dead_token(segment, bits, rows) for segment, bits in dead.items()}
    return Era(rows, length, given, opened, open_rows, live, dead, tokens)
