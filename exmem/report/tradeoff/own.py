"""Parts of one's own, which a configuration names by where they are: `own: {scorer: {edges: my_parts.edges}}`.

Only the configuration that a user runs imports code. What a memory records is looked up by name and imports nothing.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exmem.codecs import CODECS
from exmem.errors import SchemaError
from exmem.masking import KEEP_RULES, TEXT_RULES
from exmem.masking.scorers import SCORERS
from exmem.recipes.fills import FILLS
from exmem.recipes.forms import FORMS
from exmem.recipes.recipe import RECIPES
from exmem.registry import Registry
from exmem.replay import SAMPLERS
from exmem.replay.augment import AUGMENTATIONS
from exmem.selection import SELECTIONS
from exmem.tokens.checks import shown
from exmem.train.data.layouts import LAYOUTS
from exmem.train.methods import HEADS
from exmem.train.tuners import TUNERS

__all__ = ["Own", "add_own", "read_own"]

Own = Mapping[str, Mapping[str, str]]
"""Kind of part -> its name -> `module:name`, where it is."""

_ALL: tuple[Registry[Any], ...] = (
    AUGMENTATIONS,
    CODECS,
    FILLS,
    FORMS,
    HEADS,
    KEEP_RULES,
    LAYOUTS,
    RECIPES,
    SAMPLERS,
    SCORERS,
    SELECTIONS,
    TEXT_RULES,
    TUNERS,
)
_KINDS = {registry.kind.replace(" ", "_"): registry for registry in _ALL}
_added: dict[tuple[str, str], str] = {}  # what this process added


def read_own(document: Any) -> dict[str, dict[str, str]]:
    """Read the section `own`; SchemaError says what it should be."""
    if not isinstance(document, Mapping):
        raise SchemaError(f"own: expected a mapping of kinds {sorted(_KINDS)}, got {shown(document)}")
    if unknown := sorted(set(map(str, document)) - set(_KINDS)):
        raise SchemaError(f"own: unknown kinds {unknown}; known are {sorted(_KINDS)}")
    return {str(kind): _places(f"own.{kind}", places) for kind, places in document.items()}


def _places(where: str, places: Any) -> dict[str, str]:
    if not isinstance(places, Mapping):
        raise SchemaError(f"{where}: expected a mapping of names to dotted names, got {shown(places)}")
    return {str(name): _place(f"{where}.{name}", place) for name, place in places.items()}


def _place(where: str, place: Any) -> str:
    module, colon, attribute = str(place).partition(":") if ":" in str(place) else str(place).rpartition(".")
    if not isinstance(place, str) or not (module and colon and attribute):
        raise SchemaError(f"{where}: expected module.name or module:name, got {shown(place)}")
    return f"{module}:{attribute}"


def add_own(own: Own, folder: Path) -> None:
    """Give parts their names in this process; modules are looked for in the folder of the configuration first.

    SchemaError if one cannot be imported, or there is another part of the name.
    """
    if own and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for kind, places in own.items():
        for name, place in places.items():
            known = _added.get((kind, name))
            if known is None:
                _KINDS[kind].add(name, place)
                _added[kind, name] = place
            elif known != place:
                raise SchemaError(f"own.{kind}.{name}: {place} is {known} in this process already; choose another name")
            _KINDS[kind][name]  # an import that fails is told here
