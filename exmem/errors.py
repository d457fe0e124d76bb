"""Every error that exmem raises on purpose, in one tree.

The only positional argument of an error is its message, so that it survives pickling between processes.
"""

__all__ = [
    "BudgetError",
    "BudgetTooSmallError",
    "CarriedThroughWarning",
    "CodecError",
    "CodecOptionError",
    "CorruptExemplarError",
    "CorruptMetadataError",
    "DataError",
    "DataWarning",
    "ExemplarTooLargeError",
    "ExmemError",
    "FormatError",
    "InvalidExemplarError",
    "LockedError",
    "ReadOnlyError",
    "SchemaError",
    "StaleSnapshotError",
    "StoreError",
    "StoreExistsError",
    "StoreIOError",
    "StoreNotFoundError",
    "UnknownSlotError",
]


class ExmemError(Exception):
    """The root of all errors of exmem."""


class SchemaError(ExmemError, ValueError):
    """A schema, token specification or configuration is wrong."""


class InvalidExemplarError(ExmemError, ValueError):
    """An exemplar or batch does not fit the schema; nothing was stored."""


class CodecError(ExmemError, ValueError):
    """A payload codec cannot take what it was given, or a payload cannot be decoded."""


class CodecOptionError(CodecError, SchemaError):
    """A payload codec cannot be made: its name or an option is wrong, or it cannot take such tokens."""


class DataError(ExmemError, ValueError):
    """Input data (a folder, an image, a package) is missing or not in the expected form."""


class BudgetError(ExmemError):
    """Something does not fit the budget of bytes."""


class BudgetTooSmallError(BudgetError, ValueError):
    """The budget is below the minimum that an empty store of this schema needs."""


class ExemplarTooLargeError(BudgetError):
    """An exemplar or a charge does not fit even after evicting everything that may be evicted."""


class StoreError(ExmemError):
    """Something is wrong with a store as a whole."""


class StoreExistsError(StoreError):
    """A store, or something else, is already there."""


class StoreNotFoundError(StoreError):
    """There is no store at this place."""


class FormatError(StoreError):
    """The store was written in an unknown format version or its metadata is broken."""


class CorruptMetadataError(FormatError):
    """Metadata of a store are damaged; the message names store and file."""


class LockedError(StoreError):
    """Another process holds the store for writing."""


class ReadOnlyError(StoreError):
    """The store was opened for reading, or its folder cannot be written."""


class StoreIOError(StoreError, OSError):
    """The storage failed (full disk, missing permission, broken device); the store is unchanged."""


class CorruptExemplarError(StoreError):
    """Stored bytes are damaged; the message names store, exemplar and file."""


class StaleSnapshotError(StoreError):
    """What this reader's snapshot refers to was reclaimed by the writer; call `refresh()`."""


class UnknownSlotError(ExmemError, LookupError):
    """A slot holds no exemplar (it never did, or it was evicted)."""


class CarriedThroughWarning(UserWarning):
    """A resize or charge that was interrupted was carried through later, and exemplars were evicted for it."""


class DataWarning(UserWarning):
    """Data can be used, but may not be what was meant: classes that look alike, images that no row names."""
