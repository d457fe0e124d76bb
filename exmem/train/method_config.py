"""Configuration of a method: what is minimised, and what classifies."""

import dataclasses

from exmem.errors import SchemaError
from exmem.registry import Part
from exmem.tokens.checks import flag
from exmem.train.checks import check_number
from exmem.train.methods import HEADS

__all__ = ["MethodConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What the loss is besides the cross entropy of new examples and replayed exemplars, and what classifies.

    Parameters
    ----------
    head : Part
        What classifies after a phase: logistic (refitted on the exemplars as they are stored, balanced by class; on the
        new examples where none are), nearest_exemplar_mean (as iCaRL classifies; refitted alike), linear (the head
        that was trained with the blocks), ridge, slda, ranpac or nearest_mean (which carry sums over all examples;
        these count).
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
    aligned : bool
        Whether the weights of new classes in the linear head are shortened after a phase, until they are no longer than
        those of old classes (WA).
    """

    head: Part = Part("logistic")
    distill_weight: float = 1.0
    temperature: float = 2.0
    label_smoothing: float = 0.0
    asymmetric: bool = False
    dark_weight: float = 0.0
    aligned: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", Part.of(self.head))
        if self.head.name not in {"linear", *HEADS}:
            raise SchemaError(f"method.head: unknown {self.head.name!r}; choose one of {sorted(['linear', *HEADS])}")
        if self.head != Part("linear"):
            HEADS.check(self.head.name, self.head.kwargs)
            HEADS.make(self.head.name, **self.head.kwargs)  # a value out of range is told here
        check_number(self, "method", "distill_weight", least=0)
        check_number(self, "method", "temperature", above=0)
        check_number(self, "method", "label_smoothing", least=0, most=1)
        check_number(self, "method", "dark_weight", least=0)
        for name in ("asymmetric", "aligned"):
            flag(getattr(self, name), f"method.{name}")
