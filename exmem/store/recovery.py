"""Putting a store in order after a writer died or an operation failed."""

from exmem.errors import CodecError, CorruptExemplarError, FormatError
from exmem.store.format.documents import says_the_same
from exmem.store.format.layout import Layout, parse_key
from exmem.store.format.state import State
from exmem.store.objects import BudgetedObjects, Objects
from exmem.store.reader import Reader
from exmem.store.segments import Rows, segment_objects
from exmem.store.staging import Staged

__all__ = ["clear_leftovers", "expected_keys", "is_right", "restore_documents", "restore_open"]


def expected_keys(layout: Layout, state: State) -> set[str]:
    """Return the names below eras that a committed state can have; a segment need not have all of them."""
    expected: set[str] = set()
    for number, era in state.eras.items():
        expected.update(layout.era_documents(number, era.rows, era.length))
        for segment in era.live.tolist():
            expected.update(layout.segment_keys(number, segment))
    return expected


def clear_leftovers(objects: BudgetedObjects, layout: Layout, state: State, staged: Staged) -> None:
    """Delete what lies below an era and neither the committed state nor what is staged refers to."""
    expected = expected_keys(layout, state)
    for name in staged.segments:
        expected.update(layout.segment_keys(*divmod(name, 1 << 36)))
    for key in [key for key in objects.sizes if parse_key(key) is not None and key not in expected]:
        objects.delete(key)


def is_right(objects: Objects, key: str, expected: bytes) -> bool:
    """Return whether the metadata of an array or an era is there and says what it must."""
    try:
        return says_the_same(objects.get(key, limit=2 * len(expected) + 2**24), expected)
    except FormatError:  # far too long, or something else stands under its name
        return False


def restore_documents(objects: BudgetedObjects, layout: Layout, state: State) -> None:
    """Put the metadata of eras again where it is not what the state says."""
    for number, era in state.eras.items():
        for key, data in layout.era_documents(number, era.rows, era.length).items():
            if not is_right(objects.objects, key, data):
                objects.put(key, data)


def restore_open(objects: BudgetedObjects, reader: Reader, layout: Layout, state: State) -> None:
    """Put the open segment again with its committed rows alone, if a commit that did not happen left more in it.

    What was written is at most one segment, and so is what it becomes: the reserve covers both side by side. Where
    committed rows are damaged, the catalog alone is put again, and the rest is left to check and repair.
    """
    number, era = state.era, state.eras[state.era]
    if era.open < 0:
        return
    keys = layout.segment_keys(number, era.open)
    try:
        expected = segment_objects(reader.segment(number, era.open, state), number, era.open, era.rows)
    except CorruptExemplarError:
        keys = [layout.catalog_key(number, era.open)]
        try:
            rows = Rows.listed(layout, reader.table(number, era.open, state))
        except (CodecError, FormatError):
            return
        expected = segment_objects(rows, number, era.open, era.rows)
    for key in keys:
        if key not in expected:
            objects.delete(key)
        elif objects.objects.get(key, limit=2 * len(expected[key]) + 2**24) != expected[key]:
            objects.put(key, expected[key])
        reader.mapped.forget(key)
