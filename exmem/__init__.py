"""Exemplar memory for continual learning: sparse masked token sets in Zarr under a strict budget of bytes."""

from exmem.errors import ExmemError
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
