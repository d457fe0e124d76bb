"""What the classifiers of a run get right after a phase."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load_file

from exmem.train.folder import RunFolder
from exmem.train.learner import ClassMeans, Learner
from exmem.train.methods import Head, Labelled
from exmem.train.metrics import accuracies
from exmem.train.scenario import Scenario

__all__ = ["learnt_means", "measured_after", "tracked"]


def tracked(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a phase that trackers are told, by name."""
    numbers = {f"accuracy/{kind}": entry[kind]["all"] for kind in ("head", "ncm", "linear") if kind in entry}
    numbers |= {name: entry[name] for name in ("exemplars", "disk_bytes", "head_bytes", "adapter_bytes", "seconds")}
    return numbers | ({"loss": entry["losses"][-1]} if entry["losses"] else {})


def learnt_means(folder: RunFolder, new: Labelled, before: Sequence[int]) -> ClassMeans:
    """Return class means without a memory: each stays as it was when its class was learnt; those before, too."""
    means = ClassMeans.of(torch.from_numpy(new.features), torch.from_numpy(new.labels))
    file = folder.path / "state" / "means.safetensors"
    if before:
        known = load_file(file)
        older = torch.isin(known["classes"], torch.tensor(before))
        means = ClassMeans(known["classes"][older].tolist(), known["means"][older]).merged(means)
    folder.save_tensors(file, {"classes": torch.tensor(means.classes), "means": means.means})
    return means


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
