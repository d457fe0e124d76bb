"""Whether a memory that is there was made as one would be made now."""

from collections.abc import Mapping
from typing import Any

from exmem.errors import SchemaError
from exmem.integrations.samples.fields import FieldLayout
from exmem.memory import ExemplarMemory
from exmem.recipes import Recipe
from exmem.tokens.checks import shown

__all__ = ["checked_layout"]


def checked_layout(memory: ExemplarMemory, *, recipe: Recipe | None, eviction: str) -> FieldLayout:
    """Return how a memory holds samples; SchemaError if it was made otherwise."""
    if memory.eviction != eviction:
        raise SchemaError(f"{memory.location}: made with eviction {memory.eviction!r}; choose another place")
    recorded = None if memory.schema.recipe is None else memory.schema.recipe["recipe"]
    given = None if recipe is None else recipe.to_json()
    if recorded != given:
        raise SchemaError(
            f"{memory.location}: made with {_told(recorded, given)}, got {_told(given, recorded)}; give the same, "
            "or choose another place"
        )
    return FieldLayout.noted(memory.attrs, memory.schema, memory.location)


def _told(recipe: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """Say a recipe by what differs from another one."""
    if recipe is None or other is None:
        return "no recipe" if recipe is None else f"the recipe {recipe.get('name')!r}"
    return "a recipe of " + ", ".join(f"{key} {shown(recipe[key])}" for key in recipe if recipe[key] != other.get(key))
