"""The metadata of the root group: format version, schema, and the settings of what stands above the store."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from exmem.codecs import CODECS, codec_name
from exmem.errors import FormatError
from exmem.store.format.documents import CONSOLIDATED, FROM_A_COPY, broken, seal, unseal
from exmem.tokens import Schema

__all__ = ["FORMAT", "MOST_ROOT_BYTES", "ROOT_KEY", "Root", "parse_root", "root_document"]

FORMAT = 1
ROOT_KEY = "zarr.json"
MOST_ROOT_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class Root:
    """What the metadata of the root says.

    `settings` are plain JSON values that the store keeps and does not look at. `others` is what other tools wrote
    beside them; `consolidated` says that it includes a copy of all metadata, which is stale after the next commit.
    """

    schema: Schema
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    consolidated: bool = False

    @functools.cached_property
    def num_bytes(self) -> int:
        """Bytes of the document."""
        return len(root_document(self))


def root_document(root: Root) -> bytes:
    """Return the document; options of codecs that the arrays' own metadata holds are left out."""
    described = root.schema.to_json()
    for modality in described["modalities"].values():
        codec_type = CODECS.get(codec_name(str(modality["codec"].get("id"))))
        for option in codec_type.stored_apart if codec_type else ():
            modality["codec"].pop(option, None)
    attributes = {**root.others.get("attributes", {})}
    attributes["exmem"] = {"format": FORMAT, "settings": dict(root.settings), "schema": described}
    return seal({**root.others, "zarr_format": 3, "node_type": "group", "attributes": attributes})


def parse_root(data: bytes, location: str) -> Root:
    """Read the document, the format version first; FormatError if it is none of exmem, or unknown, or damaged."""
    try:
        version = json.loads(data)["attributes"]["exmem"]["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{location}: {ROOT_KEY} is no exmem store ({type(error).__name__}: {error})") from error
    if version != FORMAT:
        raise FormatError(
            f"{location}: written in format {version!r}, this version of exmem reads format {FORMAT}; "
            "use the version of exmem that wrote it, or a newer one"
        )
    try:
        document = unseal(data)
        attributes = dict(document.pop("attributes"))
        of_exmem = attributes.pop("exmem")
        consolidated = document.pop(CONSOLIDATED, None) is not None
        others = {key: value for key, value in document.items() if key not in {"zarr_format", "node_type"}}
        if attributes:
            others["attributes"] = attributes
        return Root(Schema.from_json(of_exmem["schema"]), dict(of_exmem["settings"]), others, consolidated)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise broken(location, ROOT_KEY, error, remedy=FROM_A_COPY) from error
