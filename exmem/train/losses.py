"""What a step minimises."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

__all__ = ["Objective", "dark_knowledge", "distillation", "negative_log_likelihood"]


class Objective(NamedTuple):
    """The parts of a loss, as `exmem.train.config.MethodConfig` has them."""

    distill_weight: float = 0.0
    temperature: float = 2.0
    label_smoothing: float = 0.0
    asymmetric: bool = False
    dark_weight: float = 0.0


def negative_log_likelihood(
    logits: Tensor, targets: Tensor, *, objective: Objective, old: int, replayed: bool
) -> Tensor:
    """Return the cross-entropy of logits (B, C), of which those of `old` classes come first, mean over the batch.

    Where it is asymmetric, new examples compete with new classes alone, and replayed exemplars with all (ER-ACE, Caccia
    et al. 2022, section 4): new classes then do not push the old ones away. Theirs are the classes of a batch, ours
    those of the phase (a choice: they do not depend on what a batch happens to hold).
    """
    if objective.asymmetric and not replayed:
        logits, targets = logits[:, old:], targets - old
    return cross_entropy(logits, targets, label_smoothing=objective.label_smoothing)


def dark_knowledge(logits: Tensor, stored: Tensor) -> Tensor:
    """Return the mean squared error of logits (B, C) from those that were stored, NaN where a class was not learnt.

    DER++ (Buzzega et al. 2020, equation 6).
    """
    known = ~stored.isnan()
    return (logits[known] - stored[known]).square().mean()


def distillation(logits: Tensor, expected: Tensor, *, temperature: float) -> Tensor:
    """Return how far predictions are from those of the model before (Hinton et al. 2015; Li & Hoiem 2016).

    Kullback-Leibler divergence of logits (B, C) of the old classes at a temperature, mean over the batch, times its
    square.
    """
    now, before = log_softmax(logits / temperature, -1), softmax(expected / temperature, -1)
    return kl_div(now, before, reduction="batchmean") * temperature**2
