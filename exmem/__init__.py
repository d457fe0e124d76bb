"""Exemplar memory for continual learning: sparse masked token sets in Zarr under a strict budget of bytes."""

import importlib
from typing import TYPE_CHECKING, Any

from exmem.errors import ExmemError

if TYPE_CHECKING:
    from exmem.memory import AddPlan, AddReport, ClassSummary, ExemplarMemory
    from exmem.store import format_bytes, parse_bytes
    from exmem.tokens import Exemplar, ExtraSpec, PaddedTokens, Schema, TokenBatch, TokenSet, TokenSpec

__version__ = "0.1.0"

__all__ = [
    "AddPlan",
    "AddReport",
    "ClassSummary",
    "Exemplar",
    "ExemplarMemory",
    "ExmemError",
    "ExtraSpec",
    "PaddedTokens",
    "Schema",
    "TokenBatch",
    "TokenSet",
    "TokenSpec",
    "format_bytes",
    "parse_bytes",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for; the command line has to be there before NumPy is, to tell of an interrupt."""
    if name in __all__:
        for package in map(importlib.import_module, ("exmem.tokens", "exmem.store", "exmem.memory")):
            if name in package.__all__:
                value = globals()[name] = getattr(package, name)
                return value
    raise AttributeError(f"module 'exmem' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
