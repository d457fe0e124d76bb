"""Nested frozen dataclasses out of plain documents."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from exmem.errors import SchemaError
from exmem.recipes import Recipe
from exmem.registry import Part
from exmem.tokens.checks import shown

__all__ = ["flat", "plain", "read_fields"]

_Config = TypeVar("_Config")


def read_fields(config: type[_Config], document: Mapping[str, Any], where: str) -> _Config:
    """Make a dataclass of a mapping; SchemaError names an unknown key, or a value of another kind."""
    kinds = get_type_hints(config)
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    if unknown := sorted(set(map(str, document)) - set(known)):
        raise SchemaError(f"{where or 'configuration'}: unknown keys {unknown}; known are {known}")
    return config(**{key: _value(kinds[key], value, f"{where}.{key}".strip(".")) for key, value in document.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind is Recipe:
        if not isinstance(value, str | os.PathLike | Mapping | Recipe):
            raise SchemaError(f"{where}: expected a name, a file or a mapping of parts, got {shown(value)}")
        return Recipe.of(value)
    if kind is Part:
        try:
            return Part.of(value)
        except SchemaError as error:
            raise SchemaError(f"{where}: {error}") from error
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise SchemaError(f"{where}: expected a mapping of options, got {shown(value)}")
        return read_fields(kind, value, where)
    if get_origin(kind) is tuple:
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(_value(get_args(kind)[0], inner, where) for inner in values)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a file may hold max_bytes: 300000
    if kind is float and isinstance(value, str):  # YAML takes 1e-3 for text
        value = _number(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    plain = [part for part in (get_args(kind) if isinstance(kind, UnionType) else (kind,)) if isinstance(part, type)]
    if plain and not any(_is(value, part) for part in plain):
        names = " or ".join("nothing" if part is type(None) else part.__name__ for part in plain)
        raise SchemaError(f"{where}: expected {names}, got {shown(value)}")
    return float(value) if plain == [float] else value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def plain(value: Any) -> Any:
    """Return a value of a configuration as plain JSON."""
    if isinstance(value, Recipe | Part):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [plain(inner) for inner in value] if isinstance(value, tuple) else value


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the options of a document by their dotted names; a part with its options is one value."""
    for key, value in document.items():
        if isinstance(value, Mapping) and "name" not in value:
            yield from flat(value, f"{prefix}{key}.")
        elif key == "recipe":
            yield from ((f"recipe.{part}", held) for part, held in value.items())
        else:
            yield f"{prefix}{key}", value
