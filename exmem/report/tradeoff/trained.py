"""A run of the trainer as a cell."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from typing_extensions import override

from exmem.memory import ExemplarMemory
from exmem.replay import Pipeline
from exmem.report.tradeoff.cells import Cell
from exmem.tokens.tensors import TensorBatch
from exmem.train.config import TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.metrics import average_incremental_accuracy, forgetting, kept_bytes, last_accuracy
from exmem.train.parts import load_run_backbone, load_run_data
from exmem.train.trainer import Trainer

__all__ = ["run_trainer"]

_STEP = 64  # exemplars
_STEPS = 5


class _Lines(io.StringIO):
    """A file that tells each line that is written to it."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    @override
    def write(self, text: str) -> int:
        if text.strip():
            self._tell(text.strip())
        return len(text)


def run_trainer(cell: Cell, place: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run a cell in a run folder below its place, or go on with it at its phase; return what it measured."""
    config = TrainConfig.from_json(cell.config)
    learning, testing = load_run_data(config, Path(cell.folder))
    torch.manual_seed(config.seed)
    backbone = load_run_backbone(config)
    trainer = Trainer(RunFolder(place / "run"), config, backbone, train=learning, test=testing)
    entries = trainer.run(Console(file=_Lines(tell), width=200, markup=False, emoji=False, highlight=False))
    phases = [_phase(entries[: at + 1], cell.model_bytes) for at in range(len(entries))]
    phases[-1]["step_ms"] = _step_ms(trainer)
    return {"phases": phases}


def _phase(entries: list[dict[str, Any]], model_bytes: int) -> dict[str, Any]:
    """Return the row of the last phase of those given."""
    entry, overall = entries[-1], [one["head"]["all"] for one in entries]
    memory, exemplars, stored = entry["disk_bytes"], entry["exemplars"], entry.get("head_stored")
    return {
        "phase": entry["phase"],
        "bytes": kept_bytes(entry) + model_bytes,
        "exemplars": exemplars,
        "exemplar_bytes": memory / exemplars if exemplars else float("nan"),
        "average": average_incremental_accuracy(overall),
        "last": last_accuracy(overall),
        "forgetting": forgetting([one["head"]["by_phase"] for one in entries]),
        "last_stored": float("nan") if stored is None else last_accuracy([stored["all"]]),
        "seconds": entry["seconds"],
        "step_ms": float("nan"),
    }


@torch.inference_mode()
def _step_ms(trainer: Trainer) -> float:
    """Return the median time of 64 exemplars from the memory to features, as the probe measures it; NaN of none."""
    if trainer.bound is None or not (trainer.folder.memory / "zarr.json").exists():
        return float("nan")
    pipeline, learner, seconds = Pipeline(trainer.bound.restore), trainer.learner, []
    with ExemplarMemory.open(trainer.folder.memory) as memory:
        slots = memory.slots
        if not len(slots):
            return float("nan")
        pipeline.follow(memory)
        for step in range(_STEPS):
            chosen = np.random.default_rng(step).choice(slots, min(_STEP, len(slots)), replace=False)
            began = time.perf_counter()
            batch = pipeline(TensorBatch.from_numpy(memory.read(chosen)))
            if "features" not in batch.tokens:
                learner.features(learner.backbone.embed(batch)).cpu()
            seconds.append((time.perf_counter() - began) * _STEP / len(chosen))
    return 1000 * float(np.median(seconds))
