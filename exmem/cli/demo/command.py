"""`exmem demo`: the main job on real data."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exmem.train.config import RecipeName, TrainConfig

if TYPE_CHECKING:
    from rich.console import Console

    from exmem.backbones import Backbone
    from exmem.train.data import ImageText

__all__ = ["demo"]

_RECIPES: tuple[RecipeName, ...] = ("none", "raw", "half_jpeg", "masked")


def demo(*, out: Path = Path("demo-run"), max_bytes: str = "1MB", epochs: int = 3, seed: int = 0) -> None:
    """Learn 22 classes of stickers in 5 phases with four kinds of exemplars at one budget; compare them.

    Finished runs in the folder are shown at once; an interrupted one goes on.

    Parameters
    ----------
    out : Path
        Folder of the runs and the pictures.
    max_bytes : str
        Strict budget of each memory.
    epochs : int
        Passes over the new data of a phase.
    seed : int
        Seed.
    """
    import transformers
    from rich.console import Console

    from exmem.backbones import Joint
    from exmem.backbones.packaged import dinov2_small, minilm
    from exmem.cli.demo.stickers import StickersConfig, build_stickers, notice
    from exmem.report.drawn_run import draw_run
    from exmem.report.plots import draw_accuracy
    from exmem.train.data import load_imagefolder
    from exmem.train.folder import RunFolder
    from exmem.train.trainer import Trainer

    console = Console()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    weights = dinov2_small(progress=console.print), minilm(progress=console.print)
    folder = build_stickers(StickersConfig(num_classes=22, max_train=70, max_test=25), progress=console.print)
    train, test = load_imagefolder(folder)
    console.print(notice(folder), highlight=False, style="dim", soft_wrap=True)
    configs = [
        TrainConfig(
            first_classes=6,
            increments=(4,),
            seed=seed,
            recipe=recipe,
            max_bytes=max_bytes,
            epochs=epochs,
            score_layers=(-3,),
            image_size=112,
            tuned_blocks=1,
            distill_weight=0.0 if recipe == "none" else 1.0,  # plain fine-tuning
        )
        for recipe in _RECIPES
    ]
    unfinished = [config for config in configs if not RunFolder(out / config.recipe).picture.exists()]
    runs: dict[str, list[dict[str, Any]]] = {}
    for config in configs:
        backbone = Joint.from_pretrained(*weights, image_size=112, trainable_blocks=1)
        if unfinished and not runs:
            _announce(console, unfinished, backbone, train, test)
        run = RunFolder(out / config.recipe)
        trainer = Trainer(run, config, backbone, train=train, test=test, features=out / "features")
        runs[config.recipe] = trainer.run(console)
        draw_run(trainer)
    shutil.rmtree(out / "features", ignore_errors=True)
    draw_accuracy(runs, out / "accuracy.png")
    _show(console, runs)
    console.print(f"Accuracy per phase: {out / 'accuracy.png'}", highlight=False, soft_wrap=True)
    console.print(f"Stored exemplars: {out / 'masked' / 'exemplars.png'}", highlight=False, soft_wrap=True)
    console.print(f"The same as a page: {out / 'masked' / 'exemplars.html'}", highlight=False, soft_wrap=True)
    others = ", ".join(str(out / name / "exemplars.png") for name in ("raw", "half_jpeg"))
    console.print(f"Those of the other recipes: {others}", highlight=False, soft_wrap=True)


def _announce(
    console: "Console", configs: list[TrainConfig], backbone: "Backbone", train: "ImageText", test: "ImageText"
) -> None:
    import numpy as np

    from exmem.train.features import data_batch
    from exmem.train.trainer import learning_units

    read = data_batch(backbone, train)
    backbone.embed(read(np.arange(32)))
    began = time.monotonic()
    backbone.embed(read(np.arange(32)))
    each = (time.monotonic() - began) / 32
    units = len(train) + len(test) + sum(learning_units(config, backbone, len(train)) for config in configs)
    minutes = max(1, round(each * units / 60))
    console.print(
        f"{len(train)} pictures to learn from, {len(test)} to test with, {len(configs)} recipes to run: "
        f"about {minutes} minutes on this machine.",
        soft_wrap=True,
    )


def _show(console: "Console", runs: dict[str, list[dict[str, Any]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from exmem.train.metrics import average_incremental_accuracy, forgetting, last_accuracy

    headings = ("recipe", "exemplars", "bytes on disk", "each", "linear avg", "last", "NCM avg", "last")
    table = Table(*headings, "forgetting", "seconds")
    for name, entries in runs.items():
        last = entries[-1]
        size = last["disk_bytes"] or last["mean_bytes"]
        cells = [f"{last['disk_bytes']:,}" if last["disk_bytes"] else f"{size:,} (means)"]
        cells.append(f"{size // last['exemplars']:,}" if last["exemplars"] else "-")
        for key in ("linear", "ncm"):
            overall = [entry[key]["all"] for entry in entries]
            cells += [f"{average_incremental_accuracy(overall):.1%}", f"{last_accuracy(overall):.1%}"]
        lost = forgetting([entry["linear"]["by_phase"] for entry in entries])
        seconds = sum(entry["seconds"] for entry in entries)
        table.add_row(name, str(last["exemplars"]), *cells, f"{lost:.1%}", f"{seconds:.0f}")
    Console(width=max(console.width, 120)).print(table)  # a narrow table would cut its numbers off
    missing = {name: len(entries[-1]["classes_without_exemplars"]) for name, entries in runs.items()}
    for name, number in missing.items():
        if number:
            console.print(f"{name}: {number} classes have no exemplar; the nearest mean cannot predict them.")
