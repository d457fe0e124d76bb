"""Selection and eviction: which exemplars come in, and which go first."""

from exmem.selection.eviction import eviction_order
from exmem.selection.herding import herding
from exmem.selection.random import Reservoir, random_order

__all__ = ["Reservoir", "eviction_order", "herding", "random_order"]
