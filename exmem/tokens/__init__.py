"""Value types: what an exemplar is, before anything is encoded or stored.

Axis letters used everywhere: B batch, N exemplars, L positions of the dense sequence, K kept tokens, D channels.
"""

from exmem.tokens.batches import PaddedTokens, TokenBatch
from exmem.tokens.patches import cut_patches, join_patches
from exmem.tokens.sets import Exemplar, TokenSet
from exmem.tokens.spec import ExtraSpec, Schema, TokenSpec

__all__ = [
    "Exemplar",
    "ExtraSpec",
    "PaddedTokens",
    "Schema",
    "TokenBatch",
    "TokenSet",
    "TokenSpec",
    "cut_patches",
    "join_patches",
]
