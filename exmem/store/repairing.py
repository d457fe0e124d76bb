"""Dropping exactly what is damaged."""

from exmem.errors import CorruptExemplarError, StaleSnapshotError
from exmem.store.budgeted import BudgetedObjects
from exmem.store.catalog import catalog_chunk_key
from exmem.store.checking import Damage, find_damage, metadata_documents, rebuilt_rows
from exmem.store.chunks import encode_rows
from exmem.store.layout import Layout
from exmem.store.reader import Reader
from exmem.store.writer import Writer

__all__ = ["drop_damage"]


def drop_damage(objects: BudgetedObjects, layout: Layout, reader: Reader, writer: Writer) -> list[Damage]:
    """Drop exactly the exemplars that cannot be read, and write damaged metadata and rows again.

    Parameters
    ----------
    objects : BudgetedObjects
        The objects of the store; the lock is held.
    layout : Layout
        Its layout.
    reader : Reader
        Reads it.
    writer : Writer
        Changes it.

    Returns
    -------
    list of Damage
        What was damaged.
    """
    catalog = writer.catalog
    found = list(find_damage(objects.objects, layout, catalog, reader))
    for chunk in list(catalog.damaged):
        objects.delete(catalog_chunk_key(chunk))
        del catalog.damaged[chunk]
    for key, document in metadata_documents(layout, catalog).items():
        if objects.objects.get(key) != document:
            objects.put(key, document)
    held, files = set(catalog.slots.tolist()), {damage.file for damage in found}
    for array in layout.rows:
        for chunk in sorted({slot // array.chunk_rows for slot in held}):
            if array.key(chunk) not in files:
                continue
            reader.forget(array.key(chunk))
            try:
                data = encode_rows(reader.chunk(array, chunk, required=True))
            except (CorruptExemplarError, StaleSnapshotError):
                data = rebuilt_rows(array, chunk, layout, catalog)
            objects.put(array.key(chunk), data)
            reader.forget(array.key(chunk))
    writer.evict(sorted({slot for damage in found for slot in damage.slots if slot in held}))
    reader.clear()
    writer.recover(unclean=True)
    return found
