"""What the values of a configuration may be."""

import dataclasses
import math
from typing import Any, get_args

from exmem.errors import SchemaError
from exmem.tokens.checks import shown, whole_number

__all__ = ["check_choices", "check_count", "check_number"]


def check_choices(config: Any, where: str) -> None:
    """Refuse a value that is none of its field's literals."""
    for field in dataclasses.fields(config):
        choices, value = get_args(field.type), getattr(config, field.name)
        if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
            name = f"{where}.{field.name}" if where else field.name
            raise SchemaError(f"{name}: unknown {shown(value)}; choose one of {sorted(choices)}")


def check_count(config: Any, where: str, *names: str) -> None:
    """Refuse values that are no integer of 1 or more."""
    for name in names:
        whole_number(getattr(config, name), f"{where}.{name}", least=1)


def check_number(
    config: Any,
    where: str,
    name: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Refuse a value that is no number of this range."""
    value = getattr(config, name)
    fits = isinstance(value, int | float) and math.isfinite(value) and least <= value <= most and above < value < below
    if not fits:
        low = f"above {above:g}" if above > -math.inf else f"{least:g} or more"
        high = f" and at most {most:g}" if most < math.inf else f" and below {below:g}" if below < math.inf else ""
        raise SchemaError(f"{where}.{name} must be {low}{high}, got {shown(value)}")
