"""Places that a store can lie in."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from exmem.errors import SchemaError
from exmem.store.objects.contract import Objects
from exmem.store.objects.local import LocalObjects
from exmem.tokens.checks import shown

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["Place", "objects_at"]

Place: TypeAlias = "str | os.PathLike[str] | ZarrStore"  # a folder, or any Zarr store

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib makes s3:/ of s3://


def objects_at(place: Place, *, durable: bool) -> Objects:
    """Return the objects at a place, making nothing there; SchemaError if it is neither a path nor a Zarr store."""
    if isinstance(place, str | os.PathLike):
        return LocalObjects(_folder(os.fspath(place)), durable=durable)
    from exmem.store.objects.remote import objects_of  # a folder needs no Zarr

    return objects_of(place, durable=durable)


def _folder(path: str | bytes) -> Path:
    if not isinstance(path, str) or not path:
        raise SchemaError(f"expected the path of a folder as text, got {shown(path)}")
    if _ADDRESS.match(path):
        raise SchemaError(
            f"expected a folder or a Zarr store, got the address {shown(path)}; pass a Zarr store, such as "
            "zarr.storage.ObjectStore(...) or zarr.storage.FsspecStore.from_url(...)"
        )
    try:
        if "\0" in path:
            raise ValueError("it has a NUL character")
        path.encode()  # not `os.fsencode`, which takes some lone surrogates
    except ValueError as error:
        raise SchemaError(f"expected the path of a folder, got {shown(path)} ({error})") from error
    # Not `Path.expanduser`: a name such as ~old that is no user's stays as it is.
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111
