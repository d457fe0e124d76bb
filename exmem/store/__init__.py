"""The store: format 1 on any Zarr store, under a strict budget."""

from exmem.store.checking import Damage
from exmem.store.compacting import encoded_batches
from exmem.store.encode import Encoded
from exmem.store.measure import Measure
from exmem.store.root import Root, check_root
from exmem.store.store import Place, Store, create_store, open_store
from exmem.store.writer import Writer

__all__ = [
    "Damage",
    "Encoded",
    "Measure",
    "Place",
    "Root",
    "Store",
    "Writer",
    "check_root",
    "create_store",
    "encoded_batches",
    "open_store",
]
