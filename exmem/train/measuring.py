"""What the classifiers of a run get right after a phase."""

from collections.abc import Mapping
from typing import Any

import torch

from exmem.train.learner import ClassMeans, Learner
from exmem.train.methods import Head, Labelled
from exmem.train.metrics import accuracies
from exmem.train.scenario import Scenario

__all__ = ["measured_after"]


def measured_after(
    learner: Learner,
    means: ClassMeans,
    head: Head | None,
    tested: Mapping[str, Labelled],
    scenario: Scenario,
    phase: int,
) -> dict[str, Any]:
    """Measure the head, the nearest class mean, and the linear head where it was trained on all classes seen.

    No head means the linear one. Test examples come by the ending of their key: "" as they are, "_stored" as they would
    be stored.
    """
    seen, measured = scenario.seen(phase), dict[str, Any]()
    for name, (features, labels) in tested.items():
        predicted = {"ncm": means.predict(torch.from_numpy(features)).numpy()}
        if learner.classes == seen:
            logits = learner.logits(torch.from_numpy(features))
            predicted["linear"] = torch.tensor(seen)[logits.argmax(-1)].numpy()
        predicted["head"] = predicted["linear"] if head is None else head.predict(features)
        for kind, classes in predicted.items():
            measured[f"{kind}{name}"] = accuracies(classes, labels, scenario, phase)
    return measured
