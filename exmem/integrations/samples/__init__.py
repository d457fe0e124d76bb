"""Samples as named tensors in a memory: what the adapters to libraries with buffers of their own share."""

from exmem.integrations.samples.fields import FieldLayout, FieldSpec, raw_bytes
from exmem.integrations.samples.memory import FieldMemory

__all__ = ["FieldLayout", "FieldMemory", "FieldSpec", "raw_bytes"]
