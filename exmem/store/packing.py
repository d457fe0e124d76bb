"""What a step changes in the books: exemplars come into segments, or die in them. Pure; nothing is put here."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from exmem.store.catalog import PENDING, place_of, segment_of
from exmem.store.format.layout import Layout
from exmem.store.format.state import Era, State
from exmem.store.loading import SegmentInfo
from exmem.store.segments import Rows, segment_objects
from exmem.store.sizes import arrange

__all__ = ["Packed", "Tail", "bury", "drop_empty_eras", "pack"]

_NONE = np.zeros(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Tail:
    """The open segment: its number, its rows (dead ones too), and what they are accounted with."""

    segment: int
    rows: Rows
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Exemplars laid out in segments: what has to be put, where each lies, the era and its open segment after it."""

    puts: Mapping[str, bytes]
    where: NDArray[np.int64]
    segments: Mapping[int, SegmentInfo]
    era: Era
    tail: Tail | None


def pack(
    rows: Rows,
    number: int,
    era: Era,
    tail: Tail | None,
    *,
    first: int,
    target: int,
    most_segments: int | None = None,
    beside: bool = False,
) -> Packed:
    """Lay exemplars out: on into the open segment, if there is one, then into new ones from the number `first` on.

    With `most_segments`, what does not fit in so many new segments is left out (`PENDING`). With `beside`, the open
    segment stays as it is, and so does that it is the open one.
    """
    sizes = rows.sizes
    joined, groups, alone = arrange(
        sizes.tolist(),
        rows=era.rows,
        target=target,
        held_rows=era.rows if tail is None or beside else len(tail.rows),
        held_bytes=0 if tail is None else tail.size,
    )
    puts: dict[str, bytes] = {}
    where = np.full(len(rows), PENDING, np.int64)
    infos: dict[int, SegmentInfo] = {}
    if joined and tail is not None:
        content, size = tail.rows.joined(rows.take(joined)), tail.size + int(sizes[joined].sum())
        puts.update(segment_objects(content, number, tail.segment, era.rows))
        name = number << 36 | tail.segment
        where[joined] = name << 8 | np.arange(len(tail.rows), len(content))
        infos[name] = SegmentInfo(len(content), size)
        tail = Tail(tail.segment, content, size)
    parts = [(indices, False) for indices in alone] + [(indices, True) for indices in groups]
    come = []
    for segment, (indices, shared) in enumerate(parts[:most_segments], first):
        content, size = rows.take(indices), int(sizes[indices].sum())
        puts.update(segment_objects(content, number, segment, era.rows))
        name = number << 36 | segment
        where[indices] = name << 8 | np.arange(len(indices))
        infos[name] = SegmentInfo(len(indices), size)
        come.append(segment)
        if shared and not beside:
            tail = Tail(segment, content, size)
    after = era.with_segments(np.array(come, np.int64), _NONE)
    after = dataclasses.replace(
        after,
        given=max(era.given, first + len(come)) if come else era.given,
        open=-1 if tail is None else tail.segment,
        open_rows=0 if tail is None else len(tail.rows),
    )
    return Packed(puts, where, infos, after, tail)


def bury(
    state: State, segments: Mapping[int, SegmentInfo], where: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[State, dict[int, SegmentInfo], list[int]]:
    """Mark committed rows as dead: the state after it, what changed of the segments, and those that are empty now."""
    died: dict[int, tuple[int, int, int]] = {}  # segment -> rows, bytes and bits
    for name, place, size in zip(segment_of(where).tolist(), place_of(where).tolist(), sizes.tolist(), strict=True):
        count, total, bits = died.get(name, (0, 0, 0))
        died[name] = count + 1, total + size, bits | 1 << place
    infos: dict[int, SegmentInfo] = {}
    dead_bits: dict[int, int] = {}
    gone: list[int] = []
    for name, (count, total, bits) in died.items():
        info, (number, segment) = segments[name], divmod(name, 1 << 36)
        infos[name] = dataclasses.replace(info, dead_rows=info.dead_rows + count, dead_size=info.dead_size + total)
        dead_bits[name] = state.eras[number].dead.get(segment, 0) | bits
    for number in sorted({name >> 36 for name in dead_bits}):
        bits_of = {name & (1 << 36) - 1: dead for name, dead in dead_bits.items() if name >> 36 == number}
        whole = [segment for segment in bits_of if (changed := infos[number << 36 | segment]).dead_rows == changed.rows]
        era = state.eras[number].with_dead(
            {segment: dead for segment, dead in bits_of.items() if segment not in set(whole)}
        )
        era = era.with_segments(_NONE, np.array(whole, np.int64))
        if era.open in whole:
            era = dataclasses.replace(era, open=-1, open_rows=0)
        state = state.with_era(number, era)
        gone += [number << 36 | segment for segment in whole]
    return state, infos, gone


def drop_empty_eras(state: State, layout: Layout, staged: Iterable[int]) -> tuple[State, list[str]]:
    """Leave out the eras before the last that hold nothing, staged segments neither: the state, and keys that go."""
    used = {state.era, *(name >> 36 for name in staged)}
    empty = [number for number, era in state.eras.items() if number not in used and not len(era.live)]
    if not empty:
        return state, []
    keys = [key for number in empty for key in layout.era_documents(number, 1, 1)]
    eras = {number: era for number, era in state.eras.items() if number not in empty}
    return dataclasses.replace(state, eras=eras), keys
