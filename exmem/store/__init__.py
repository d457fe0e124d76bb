"""The store: format 1 on any Zarr store, under a strict budget of bytes."""

from exmem.store.format.state import new_id
from exmem.store.least import least_budget
from exmem.store.maintenance import Damage
from exmem.store.objects import Place
from exmem.store.opening import create_store, open_store
from exmem.store.segments import Rows
from exmem.store.sizes import target_of
from exmem.store.store import Store
from exmem.store.units import format_bytes, parse_bytes
from exmem.store.writer import Writer

__all__ = [
    "Damage",
    "Place",
    "Rows",
    "Store",
    "Writer",
    "create_store",
    "format_bytes",
    "least_budget",
    "new_id",
    "open_store",
    "parse_bytes",
    "target_of",
]
