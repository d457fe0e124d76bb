"""Methods of continual learning: classifiers on features that are fitted after each phase."""

from exmem.registry import Registry
from exmem.train.methods.head import Head, Labelled

__all__ = ["HEADS", "TRAINED_HEADS", "Head", "Labelled"]

TRAINED_HEADS = ("linear", "cosine")
"""Heads that are no classifiers on fixed features, but trained with the blocks."""

# By place: a head is imported when it is chosen, and scikit-learn takes a second.
HEADS: Registry[Head] = Registry(
    "head",
    {
        "lda": "exmem.train.methods.lda:Lda",
        "logistic": "exmem.train.methods.logistic:Logistic",
        "nearest_exemplar_mean": "exmem.train.methods.nearest_exemplar_mean:NearestExemplarMean",
        "nearest_mean": "exmem.train.methods.nearest_mean:NearestMean",
        "ranpac": "exmem.train.methods.ranpac:RanPac",
        "ridge": "exmem.train.methods.ridge:Ridge",
        "slda": "exmem.train.methods.slda:Slda",
    },
)
