"""Objects: named bytes that are put and deleted atomically, in a folder or in any Zarr store, and their lock."""

from exmem.store.objects.budgeted import BudgetedObjects
from exmem.store.objects.contract import TEMPORARY, Objects, View
from exmem.store.objects.local import LocalObjects
from exmem.store.objects.lock import LOCK_BYTES, LOCK_KEY, is_free
from exmem.store.objects.places import Place, objects_at

__all__ = [
    "LOCK_BYTES",
    "LOCK_KEY",
    "TEMPORARY",
    "BudgetedObjects",
    "LocalObjects",
    "Objects",
    "Place",
    "View",
    "is_free",
    "objects_at",
]
