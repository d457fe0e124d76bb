"""Selection and eviction: which exemplars come in, and which go first."""

from exmem.selection.herding import herding
from exmem.selection.ledger import Candidate, Ledger
from exmem.selection.random import Reservoir, random_order

__all__ = ["Candidate", "Ledger", "Reservoir", "herding", "random_order"]
