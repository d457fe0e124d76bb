"""Pictures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["draw_accuracy"]


def draw_accuracy(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the accuracy after each phase.

    Parameters
    ----------
    runs : mapping of str to sequence of mapping
        Name of a run -> its metrics.
    path : Path
        The PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (key, title) in zip(axes, [("linear", "Linear head"), ("ncm", "Nearest class mean")], strict=True):
        for name, entries in runs.items():
            seen = np.cumsum([len(entry["classes"]) for entry in entries])
            axis.plot(seen, [100 * entry[key]["all"] for entry in entries], marker="o", label=name)
        axis.set(title=title, xlabel="classes seen")
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="accuracy over all classes seen, %", ylim=(0, 100))
    axes[1].legend()
    figure.savefig(path, dpi=120)
