"""Configuration of a method: what is minimised, and what classifies."""

import dataclasses

from exmem.errors import SchemaError
from exmem.registry import Part
from exmem.tokens.checks import flag
from exmem.train.checks import check_number
from exmem.train.methods import HEADS, TRAINED_HEADS

__all__ = ["MethodConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What the loss is besides the cross entropy of new examples and replayed exemplars, and what classifies.

    Parameters
    ----------
    head : Part
        What classifies after a phase: logistic (refitted on the exemplars as they are stored, balanced by class; on the
        new examples where none are), lda or nearest_exemplar_mean (as iCaRL classifies; both refitted alike), linear
        (the head that was trained with the blocks), cosine (the same, of unit features and weights), ridge, slda,
        ranpac or nearest_mean (which carry sums over all examples; these count).
    distill_weight : float
        Weight of the distillation on old classes; 0 turns it off.
    temperature : float
        Temperature of the distillation.
    label_smoothing : float
        Share of a target that all classes have in common, 0..1.
    asymmetric : bool
        Whether new examples compete with the new classes alone, so that they do not push old classes away (ER-ACE).
    dark_weight : float
        Weight of the squared error of replayed exemplars from the logits that were stored with them (DER++; it needs
        `recipe.extras` logits); 0 turns it off.
    dark_update : bool
        Whether stored logits are completed after each phase by those of the classes that it brought (they were not
        known when the exemplar was stored), in place; in a full memory up to a fiftieth of the exemplars give way.
    aligned : bool
        Whether the weights of new classes in the linear head are shortened after a phase, until they are no longer than
        those of old classes (WA).
    corrected : float
        Share of the exemplars that is held back from a phase, beside as many new examples of each class, to fit two
        numbers that scale and shift the logits of the new classes (BiC); 0 turns it off.
    """

    head: Part = Part("logistic")
    distill_weight: float = 1.0
    temperature: float = 2.0
    label_smoothing: float = 0.0
    asymmetric: bool = False
    dark_weight: float = 0.0
    dark_update: bool = False
    aligned: bool = False
    corrected: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", Part.of(self.head))
        known = sorted([*TRAINED_HEADS, *HEADS])
        if self.head.name not in known:
            raise SchemaError(f"method.head: unknown {self.head.name!r}; choose one of {known}")
        if self.trains_head and self.head.kwargs:
            raise SchemaError(f"method.head {self.head.name!r} has no options, got {sorted(self.head.kwargs)}")
        if not self.trains_head:
            HEADS.check(self.head.name, self.head.kwargs)
            HEADS.make(self.head.name, **self.head.kwargs)  # a value out of range is told here
        check_number(self, "method", "distill_weight", least=0)
        check_number(self, "method", "temperature", above=0)
        check_number(self, "method", "label_smoothing", least=0, most=1)
        check_number(self, "method", "dark_weight", least=0)
        check_number(self, "method", "corrected", least=0, most=0.5)
        for name in ("asymmetric", "dark_update", "aligned"):
            flag(getattr(self, name), f"method.{name}")

    @property
    def trains_head(self) -> bool:
        """Whether what classifies is trained with the blocks, and not fitted after a phase."""
        return self.head.name in TRAINED_HEADS
