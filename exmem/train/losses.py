"""What a step minimises beside the cross-entropy."""

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, softmax

__all__ = ["dark_knowledge", "distillation"]


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
