"""The metadata of the root group: format version, budget, charges, quota, schema."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from exmem.budget import Quota
from exmem.codecs import CODECS
from exmem.errors import FormatError, SchemaError
from exmem.store.layout import unsealed
from exmem.tokens import Schema

__all__ = ["EVICTIONS", "FORMAT", "ROOT_KEY", "Root", "check_root", "parse_root", "root_document"]

FORMAT = 1
ROOT_KEY = "zarr.json"
EVICTIONS = ("by_class", "by_priority")


class Root(NamedTuple):
    """What the metadata of the root says.

    Parameters
    ----------
    schema : Schema
        What exemplars hold; options of codecs that the arrays' own metadata holds are left out.
    max_bytes : int
        The budget.
    charges : mapping of str to int
        Bytes that a learner accounts for elsewhere.
    eviction : str
        Who goes first: a value of `EVICTIONS`.
    quota : Quota
        How classes share the budget.
    """

    schema: Schema
    max_bytes: int
    charges: Mapping[str, int]
    eviction: str
    quota: Quota

    @property
    def capacity(self) -> int:
        """Bytes for the objects of the store and their reserve: the budget without the charges."""
        return self.max_bytes - sum(self.charges.values())


def check_root(root: Root) -> None:
    """Refuse what cannot hold together.

    Parameters
    ----------
    root : Root
        What the metadata is to say, or says.

    Raises
    ------
    SchemaError
        If the eviction is unknown, or knows no classes although there is a quota for them.
    """
    if root.eviction not in EVICTIONS:
        raise SchemaError(f"unknown eviction {root.eviction!r}; choose one of {list(EVICTIONS)}")
    if root.eviction == "by_priority" and root.quota != Quota():
        raise SchemaError("eviction 'by_priority' knows no classes, so it takes no quota; make the memory 'by_class'")


def root_document(root: Root) -> dict[str, Any]:
    """Return the metadata of the root group.

    Parameters
    ----------
    root : Root
        What it is to say.

    Returns
    -------
    dict
        Zarr v3 group metadata.
    """
    described = root.schema.to_json()
    for modality in described["modalities"].values():
        found = CODECS.get(str(modality["codec"].get("id"))) or CODECS.get(f"exmem.{modality['codec'].get('id')}")
        for option in found.stored_apart if found else ():
            modality["codec"].pop(option, None)
    own = {"format": FORMAT, "max_bytes": root.max_bytes, "charges": dict(root.charges), "eviction": root.eviction}
    if root.quota != Quota():  # the key is optional: equal bytes where it is missing
        own["quota"] = root.quota.to_json()
    own["schema"] = described
    return {"zarr_format": 3, "node_type": "group", "attributes": {"exmem": own}}


def parse_root(data: bytes, location: str) -> Root:
    """Read the root metadata; the format version is looked at first.

    Parameters
    ----------
    data : bytes
        Content of the root object.
    location : str
        Where the store lies, for messages.

    Returns
    -------
    Root
        What it says.

    Raises
    ------
    FormatError
        If it is no store of exmem, or of an unknown format version, or broken.
    """
    try:
        own = json.loads(data)["attributes"]["exmem"]
        version = own["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{location}: {ROOT_KEY} is no exmem store ({type(error).__name__}: {error})") from error
    if version != FORMAT:
        raise FormatError(
            f"{location}: written in format {version!r}, this version of exmem reads format {FORMAT}; "
            "use the version of exmem that wrote it, or a newer one"
        )
    try:
        own = unsealed(data)["attributes"]["exmem"]
        charges = {str(name): int(size) for name, size in own["charges"].items()}
        quota = Quota.from_json(own["quota"]) if "quota" in own else Quota()
        root = Root(Schema.from_json(own["schema"]), int(own["max_bytes"]), charges, own["eviction"], quota)
        check_root(root)
        return root
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(f"{location}: {ROOT_KEY} is broken ({type(error).__name__}: {error})") from error
