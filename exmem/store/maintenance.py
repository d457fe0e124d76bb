"""Looking at every byte of a store, and dropping exactly what is damaged."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from exmem.errors import CodecError, FormatError
from exmem.store.catalog import PENDING, place_of, segment_of
from exmem.store.format.chunks import CRC_BYTES, decode_rows, index_bytes, most_row_bytes, parse_index
from exmem.store.format.layout import Layout, ShardedArray, parse_key
from exmem.store.format.state import State
from exmem.store.loading import Loaded
from exmem.store.objects import LOCK_BYTES, LOCK_KEY, Objects, is_free
from exmem.store.reader import Reader
from exmem.store.recovery import expected_keys, is_right
from exmem.store.writer import Writer

__all__ = ["Damage", "drop_damage", "find_damage"]


@dataclasses.dataclass(frozen=True)
class Damage:
    """Something in a store that is not as it was written: the key of the object, and why.

    `slots` are the exemplars that cannot be read because of it: none where only metadata is concerned, and where the
    catalog that would name them is itself damaged: then `unnamed` is how many exemplars it named, at most.
    """

    file: str
    slots: tuple[int, ...]
    why: str
    unnamed: int = 0


def find_damage(
    objects: Objects, layout: Layout, loaded: Loaded, reader: Reader, *, staged: Iterable[int] = ()
) -> Iterator[Damage]:
    """Read and decode what a state refers to, and name what nothing refers to; what is `staged` is left out."""
    state, catalog = loaded.state, loaded.catalog
    unfinished = _is_unfinished(objects)
    for number, era in state.eras.items():
        longer = layout.era_documents(number, era.rows, 4 * era.length) if unfinished else {}  # it was about to grow
        for key, expected in layout.era_documents(number, era.rows, era.length).items():
            if not is_right(objects, key, expected) and not (unfinished and is_right(objects, key, longer[key])):
                yield Damage(key, (), "the metadata is not what it must be")
    for key, why in loaded.damaged.items():
        most = _most_held(state, key)
        yield Damage(key, (), f"{why}: which exemplars it names, at most {most}, cannot be told", most)
    where, slots, counts, lengths = catalog.where, catalog.slots, catalog.counts, catalog.lengths
    order = np.argsort(where, kind="stable")
    order = order[where[order] != PENDING]
    segments, starts = np.unique(segment_of(where[order]), return_index=True)
    for name, members in zip(segments.tolist(), np.split(order, starts[1:]) if len(segments) else [], strict=True):
        if name in staged:
            continue
        number, segment = divmod(name, 1 << 36)
        places, rows = place_of(where[members]), state.eras[number].rows
        records_key = layout.records_key(number, segment)
        yield from _check_records(objects, layout, records_key, rows, places, slots[members], counts[members])
        for column, modality in enumerate(layout.sharded):
            key = layout.shard_key(number, segment, modality)
            number_of = list(layout.schema.modalities).index(modality)
            held = _Held(slots[members], places, counts[members, number_of], lengths[members, column])
            yield from _check_shard(objects, layout.sharded[modality], key, rows, held.there())
    expected_names = expected_keys(layout, state)
    expected_names.update(key for name in staged for key in layout.segment_keys(*divmod(name, 1 << 36)))
    if not staged and unfinished:
        return  # what a living writer has staged, or one that died left, is no damage
    for key in objects.sizes():
        if parse_key(key) is not None and key not in expected_names:
            yield Damage(key, (), "no exemplar refers to it")


def _most_held(state: State, key: str) -> int:
    """Return how many exemplars a chunk of the catalog names, at most: only the document of the state is asked."""
    ((number, segment),) = (divmod(name, 1 << 36) for name in _segments_of([key]))
    era = state.eras[number]
    return (era.open_rows if segment == era.open else era.rows) - era.dead.get(segment, 0).bit_count()


def _is_unfinished(objects: Objects) -> bool:
    """Whether a writer is at work, or the last one ended without giving its lock back."""
    try:
        content = objects.get(LOCK_KEY, limit=LOCK_BYTES)
    except FormatError:
        return False
    return content is not None and not is_free(content)


class _Held(NamedTuple):
    """Exemplars of a segment: slots and places, kept tokens and payload bytes of one modality."""

    slots: NDArray[np.int64]
    places: NDArray[np.int64]
    counts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def there(self) -> "_Held":
        """Return those that have a payload."""
        chosen = self.lengths > 0
        return _Held(*(column[chosen] for column in self))


def _check_records(
    objects: Objects,
    layout: Layout,
    key: str,
    rows: int,
    places: NDArray[np.int64],
    slots: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> Iterator[Damage]:
    partly = (counts > 0) & (counts < layout.most_tokens)
    packed = [name in layout.packed for name in layout.schema.modalities]
    needed = partly.any(axis=1) | (counts[:, packed] > 0).any(axis=1) | bool(layout.extras)
    try:
        data = objects.get(key, limit=most_row_bytes(layout.record_bytes * rows))
        if data is None:
            raise CodecError("it is missing")
        records = decode_rows(data, rows, layout.record_bytes, "uint8")[places]
    except (CodecError, FormatError) as error:
        yield Damage(key, tuple(slots[needed].tolist()), str(error))
        return
    wrong = np.zeros(len(slots), np.bool_)
    for number, (name, spec) in enumerate(layout.schema.modalities.items()):
        field = layout.keep[name]
        flags = np.unpackbits(records[:, field.start : field.start + field.num_bytes], axis=1, bitorder="little")
        wrong |= (flags.sum(axis=1) != counts[:, number]) | flags[:, spec.positions :].any(axis=1)
    if wrong.any():
        yield Damage(key, tuple(slots[wrong].tolist()), "the kept positions are not as many as the catalog says")


def _check_shard(objects: Objects, array: ShardedArray, key: str, rows: int, held: _Held) -> Iterator[Damage]:
    if not len(held.slots):
        return
    size = index_bytes(rows)
    try:
        view = objects.view(key)
        if view is None:
            raise CodecError("it is missing")
        data = view.data
        index = parse_index(data[-size:] if len(data) >= size else b"", rows, len(data))
    except (CodecError, FormatError) as error:
        yield Damage(key, tuple(held.slots.tolist()), str(error))
        return
    if int(index[index[:, 0] >= 0, 1].sum()) + size != len(data):
        yield Damage(key, (), f"it has {len(data)} bytes, more than its index names")
    for slot, place, count, expected in zip(*(column.tolist() for column in held), strict=True):
        start, length = index[place].tolist()
        try:
            if start < 0 or length != expected + CRC_BYTES:
                raise CodecError(f"the payload has not the {expected} bytes that the catalog says")
            payload = bytes(data[start : start + length - CRC_BYTES])
            checksum = bytes(data[start + length - CRC_BYTES : start + length])
            if google_crc32c.value(payload).to_bytes(CRC_BYTES, "little") != checksum:
                raise CodecError("the checksum does not match")
            array.codec.decode_into(payload, np.zeros((count, *array.spec.shape), str(array.spec.dtype)))
        except CodecError as error:
            yield Damage(key, (slot,), str(error))


def drop_damage(objects: Objects, layout: Layout, reader: Reader, writer: Writer) -> tuple[list[Damage], list[int]]:
    """Evict exactly the exemplars that cannot be read, and write again what is damaged around the others.

    Returns what was damaged, and the slots that were dropped.
    """
    loaded = Loaded(writer.state, writer.catalog, writer.segments, writer.damaged_chunks, np.zeros(0, np.int64))
    damages = list(find_damage(objects, layout, loaded, reader))
    writer.drop_segments(_segments_of(writer.damaged_chunks))
    held = writer.catalog.holds(np.array(sorted({slot for damage in damages for slot in damage.slots}), np.int64))
    dropped = sorted({slot for damage in damages for slot in damage.slots})
    dropped = [slot for slot, is_held in zip(dropped, held.tolist(), strict=True) if is_held]
    if dropped:
        writer.evict(np.array(dropped, np.int64))
    for name in _segments_of(damage.file for damage in damages):
        if name in writer.segments:
            writer.clean(name, rebuild=True)
    writer.recover(unclean=True)
    return damages, dropped


def _segments_of(keys: Iterable[str] | Mapping[str, str]) -> list[int]:
    parsed = [parse_key(key) for key in keys]
    return sorted({place[0] << 36 | place[2] for place in parsed if place is not None and place[2] is not None})
