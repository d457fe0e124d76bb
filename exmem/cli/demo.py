"""`exmem demo`: the main job on real data."""

import time
from pathlib import Path
from typing import Any

from exmem.train.config import RecipeName, TrainConfig

__all__ = ["demo"]

_RECIPES: tuple[RecipeName, ...] = ("none", "raw", "half_jpeg", "masked")


def demo(*, out: Path = Path("demo-run"), max_bytes: str = "1MB", epochs: int = 3, seed: int = 0) -> None:
    """Learn 22 classes of stickers in 5 phases with four kinds of exemplars at one budget; compare them.

    Finished runs in the folder are shown at once; an interrupted one goes on.

    Parameters
    ----------
    out : Path
        Folder of the runs, the table and the pictures.
    max_bytes : str
        Strict budget of each memory.
    epochs : int
        Passes over the new data of a phase.
    seed : int
        Seed.
    """
    import numpy as np
    import transformers
    from rich.console import Console

    from exmem.backbones import Joint
    from exmem.data import StickersConfig, build_stickers, dinov2_small, load_imagefolder, minilm, notice
    from exmem.train.features import data_batch
    from exmem.train.folder import RunFolder
    from exmem.train.plots import draw_accuracy, draw_exemplars
    from exmem.train.trainer import Trainer

    console = Console()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    weights = dinov2_small(progress=console.print), minilm(progress=console.print)
    folder = build_stickers(StickersConfig(num_classes=22, max_train=70, max_test=25), progress=console.print)
    train, test = load_imagefolder(folder)
    console.print(notice(folder), highlight=False, style="dim")
    runs: dict[str, list[dict[str, Any]]] = {}
    for number, recipe in enumerate(_RECIPES):
        config = TrainConfig(
            first_classes=6,
            increments=(4,),
            seed=seed,
            recipe=recipe,
            max_bytes=max_bytes,
            epochs=epochs,
            score_layers=(-3,),
            image_size=112,
            tuned_blocks=1,
            distill_weight=0.0 if recipe == "none" else 1.0,
        )
        backbone = Joint.from_pretrained(*weights, image_size=112, trainable_blocks=1)
        run = RunFolder(out / recipe)
        if number == 0:
            read = data_batch(backbone, train)
            backbone.embed(read(np.arange(32)))
            began = time.monotonic()
            backbone.embed(read(np.arange(32)))
            each = (time.monotonic() - began) / 32
            units = len(train) * (1.6 + len(_RECIPES) * (epochs * 2 * 4 / 12 + 1))
            console.print(
                f"{len(train)} pictures, {len(_RECIPES)} recipes: about {each * units / 60:.0f} minutes here."
            )
        trainer = Trainer(run, config, backbone, train=train, test=test, features=out / "features")
        runs[recipe] = trainer.run(console)
        draw_accuracy({recipe: runs[recipe]}, run.picture)
        if trainer.recipe is not None:
            notes = [(run.note(p, "slots") or {}, run.note(p, "plan") or {}) for p in range(len(trainer.scenario))]
            rows = {s: r for slots, plan in notes for s, r in zip(slots["slots"], plan["rows"], strict=True)}
            draw_exemplars(backbone, trainer.recipe, run.memory, rows_of=rows, data=train, path=run.sheet)
    draw_accuracy(runs, out / "accuracy.png")
    _show(console, runs)
    console.print(f"Accuracy per phase: {out / 'accuracy.png'}", highlight=False)
    console.print(f"Stored exemplars: {out / 'masked' / 'exemplars.png'}", highlight=False)


def _show(console: Any, runs: dict[str, list[dict[str, Any]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from exmem.train.metrics import average_incremental_accuracy, forgetting, last_accuracy

    headings = ("recipe", "exemplars", "bytes on disk", "each", "linear avg", "last", "NCM avg", "last", "forgetting")
    table = Table(*headings, "seconds")
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
    Console(width=max(console.width, 110)).print(table)  # a narrow table would cut its numbers off
    missing = {name: len(entries[-1]["classes_without_exemplars"]) for name, entries in runs.items()}
    for name, number in missing.items():
        if number:
            console.print(f"{name}: {number} classes have no exemplar; the nearest mean cannot predict them.")
