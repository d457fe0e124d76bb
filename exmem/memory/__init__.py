"""The exemplar memory: what other code embeds."""

from exmem.memory.encoded import EncodedExemplars
from exmem.memory.memory import ExemplarMemory
from exmem.memory.reports import AddPlan, AddReport, ClassSummary, CompactReport

__all__ = ["AddPlan", "AddReport", "ClassSummary", "CompactReport", "EncodedExemplars", "ExemplarMemory"]
