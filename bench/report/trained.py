"""The reference trainer on a smaller cut of the demo data: choices that only training can show."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from bench.report.rows import Row
from exmem.train.data import ImageText
from exmem.train.folder import RunFolder
from exmem.train.metrics import average_incremental_accuracy, forgetting, last_accuracy
from exmem.train.parts import load_run_backbone
from exmem.train.scenario import Scenario
from exmem.train.trainer import Trainer

BUDGETS = (50_000, 150_000)
SEEDS = (0, 1, 2)
MODALITIES = ("image", "both")


def run(
    row: Row,
    seed: int,
    budget: int,
    modalities: str,
    *,
    data: tuple[ImageText, ImageText],
    folder: Path,
) -> dict[str, Any]:
    """Run, or go on with, one run of the trainer."""
    config = row.config(
        seed=seed,
        max_bytes=str(budget),
        data={"class_seed": seed, "modalities": modalities},
        loop={"test_stored_form": row.stored_test, "batch": 32, "replay_batch": 32, "epochs": 2},
    )
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{row.key}-{seed}-{budget}-{modalities}")
    place = RunFolder(folder / "runs" / name)
    phases = Scenario.of(config.data, len(data[0].class_names))
    entries = place.metrics()
    if len(entries) < len(phases):
        torch.manual_seed(seed)
        backbone = load_run_backbone(config)
        trainer = Trainer(place, config, backbone, train=data[0], test=data[1])
        entries = trainer.run(Console(quiet=True))
    found: dict[str, Any] = {"key": row.key, "seed": seed, "budget": budget, "modalities": modalities}
    found |= {"exemplars": entries[-1]["exemplars"], "seconds": sum(entry["seconds"] for entry in entries)}
    for head in ("linear", "ncm", "linear_stored"):
        if head in entries[-1]:
            overall = [entry[head]["all"] for entry in entries]
            found[f"{head}_average"] = average_incremental_accuracy(overall)
            found[f"{head}_last"] = last_accuracy(overall)
            found[f"{head}_old"] = float(np.mean(entries[-1][head]["by_phase"][:-1]))
            found[f"{head}_new"] = entries[-1][head]["by_phase"][-1]
    found["forgetting"] = forgetting([entry["linear"]["by_phase"] for entry in entries])
    return found
