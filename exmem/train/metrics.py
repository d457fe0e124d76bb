"""Accuracies of class-incremental learning."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from exmem.train.scenario import Scenario  # needs torch, which reading what a run measured does not

__all__ = [
    "CHARGED",
    "accuracies",
    "average_incremental_accuracy",
    "backward_transfer",
    "forgetting",
    "kept_bytes",
    "last_accuracy",
]

CHARGED = {"disk_bytes": "memory on disk", "head_bytes": "head", "adapter_bytes": "adapter", "mean_bytes": "means"}
"""What a run keeps after a phase, by its name among what was measured, in words."""


def kept_bytes(entry: Mapping[str, Any]) -> int:
    """Return all bytes that a run keeps after a phase, by what was measured."""
    return sum(entry.get(name, 0) for name in CHARGED)


def accuracies(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], scenario: "Scenario", phase: int
) -> dict[str, float | list[float]]:
    """Measure what a classifier gets right after a phase, over test examples of all classes seen.

    `all` is the share of right predictions, 0..1; `by_phase` the same for the classes of each phase. NaN where there
    are no test examples.
    """
    right = predicted == labels
    groups = [right, *(right[scenario.rows(labels, earlier)] for earlier in range(phase + 1))]
    overall, *by_phase = (float(group.mean()) if len(group) else float("nan") for group in groups)
    return {"all": overall, "by_phase": by_phase}


def average_incremental_accuracy(per_phase: Sequence[float]) -> float:
    """Return the mean of the accuracies after each phase (iCaRL, Rebuffi et al. 2017, section 4.1).

    Parameters
    ----------
    per_phase : sequence of float
        Accuracy over all classes seen, after each phase.
    """
    return float(np.mean(per_phase))


def last_accuracy(per_phase: Sequence[float]) -> float:
    """Return the accuracy over all classes after the last phase.

    Parameters
    ----------
    per_phase
        As in `average_incremental_accuracy`.
    """
    return float(per_phase[-1])


def forgetting(by_phase: Sequence[Sequence[float]]) -> float:
    """Return how far the classes of earlier phases fell from their best (Chaudhry et al. 2018, section 3).

    Mean over the phases but the last of (best accuracy before the last phase - accuracy after it); 0 with a single
    phase. Phases without test examples are left out.

    Parameters
    ----------
    by_phase : sequence of sequence of float
        Row t holds, after phase t, the accuracy on the classes of phases 0..t.

    Examples
    --------
    >>> round(forgetting([[0.9], [0.5, 0.8], [0.6, 0.7, 1.0]]), 3)
    0.2
    """
    last = len(by_phase) - 1
    falls = [max(by_phase[t][j] for t in range(j, last)) - by_phase[last][j] for j in range(last)]
    return _mean(falls)


def backward_transfer(by_phase: Sequence[Sequence[float]]) -> float:
    """Return how later phases changed the earlier ones (Lopez-Paz & Ranzato 2017, equation 3).

    Mean over the phases but the last of (accuracy after the last phase - accuracy when learnt); 0 with a single phase.
    Phases without test examples are left out.

    Parameters
    ----------
    by_phase
        As in `forgetting`.

    Examples
    --------
    >>> round(backward_transfer([[0.9], [0.5, 0.8], [0.6, 0.7, 1.0]]), 3)
    -0.2
    """
    last = len(by_phase) - 1
    return _mean([by_phase[last][j] - by_phase[j][j] for j in range(last)])


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.0
