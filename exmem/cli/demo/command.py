"""`exmem demo`: the main job on real data."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from exmem.cli.output import check_folder, make_console, print_table, write_json
from exmem.cli.runs import run_facts
from exmem.cli.words import Bytes
from exmem.errors import DataError
from exmem.registry import Part

if TYPE_CHECKING:
    from rich.console import Console

    from exmem.train import TrainConfig

__all__ = ["demo", "demo_configs"]

_RECIPES = ("none", "raw", "half_jpeg", "masked", "hidden", "features")
_AUTO = "auto"


def demo_configs(*, max_bytes: str = "1MB", epochs: int = 3, seed: int = 0) -> "list[TrainConfig]":
    """Return the configuration of each run of the demo but `auto`, which is chosen by a probe."""
    from exmem.recipes import Recipe
    from exmem.train.config import BackboneConfig, DataConfig, LoopConfig, MethodConfig, TrainConfig, TunerConfig

    config = TrainConfig(
        max_bytes=max_bytes,
        seed=seed,
        data=DataConfig(first_classes=6, increments=(4,)),
        backbone=BackboneConfig(image_size=112),
        tuner=TunerConfig(blocks=1),
        loop=LoopConfig(epochs=epochs),
    )
    scorers = {"masked": {"scorer": {"name": "cls_attention", "layers": [-3]}}}
    recipes = [Recipe.of(name).refined(**scorers.get(name, {})) for name in _RECIPES]
    plain = MethodConfig(head=Part("linear"), distill_weight=0.0)  # fine-tuning
    return [
        dataclasses.replace(config, recipe=recipe, method=plain if recipe.is_empty else config.method)
        for recipe in recipes
    ]


def demo(
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("demo-run"),
    max_bytes: Bytes = "1MB",
    epochs: int = 3,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Learn 22 classes of stickers in 5 phases with kinds of exemplars of every level at one budget; compare them.

    The last run, `auto`, stores what a frozen probe finds best on the first phase's data.

    Finished runs in the folder are shown at once; an interrupted one goes on.

    Parameters
    ----------
    out : Path
        Folder of the runs and the images.
    max_bytes : str
        Strict budget of each memory.
    epochs : int
        Passes over the new data of a phase.
    seed : int
        Seed of everything.
    json : bool
        Answer with JSON instead of a table.
    """
    import transformers

    from exmem.cli.demo.stickers import StickersConfig, build_stickers, notice
    from exmem.cli.train import with_chosen_recipe
    from exmem.recipes import BoundRecipe
    from exmem.report.plots import draw_accuracy
    from exmem.report.run import draw_run
    from exmem.train.data import load_data
    from exmem.train.folder import RunFolder, names_in
    from exmem.train.parts import charged_bytes, check_budget, load_run_backbone
    from exmem.train.trainer import Trainer

    foreign = [name for name in names_in(out) if name not in {*_RECIPES, _AUTO, "accuracy.png"}] if out.is_dir() else []
    if foreign or (out.exists() and not out.is_dir()):
        raise DataError(
            f"{out}: expected an empty folder or one of the demo, found {foreign[:5]}; choose another --out"
        )
    check_folder(out)
    configs, console = demo_configs(max_bytes=max_bytes, epochs=epochs, seed=seed), make_console(stderr=json)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = build_stickers(StickersConfig(num_classes=22, max_train=70, max_test=25), progress=console.print)
    train, test = load_data(folder)
    console.print(notice(folder), style="dim")
    backbone = load_run_backbone(configs[0], console.print)
    for config in configs:  # refused before anything is learnt
        classes = len(train.class_names)
        bound = None if config.recipe.is_empty else BoundRecipe(config.recipe, backbone, num_classes=classes)
        check_budget(config, bound, charged_bytes(config, backbone, classes))
    console.print(f"{len(train)} images to learn from, {len(test)} to test with, {len(configs) + 1} recipes to run.")
    runs: dict[str, list[dict[str, Any]]] = {}
    for name in (*_RECIPES, _AUTO):
        run = RunFolder(out / name)
        if name == _AUTO:
            config = with_chosen_recipe(run, configs[-1], train, console)
            name = f"{_AUTO}: {config.recipe.name}"
        else:
            config = configs[_RECIPES.index(name)]
        trainer = Trainer(run, config, load_run_backbone(config, console.print), train=train, test=test)
        runs[name] = trainer.run(console)
        draw_run(trainer)
    draw_accuracy(runs, out / "accuracy.png")
    _tell(console, runs, out, json=json)


def _tell(console: "Console", runs: dict[str, list[dict[str, Any]]], out: Path, *, json: bool) -> None:
    from exmem.train.folder import RunFolder

    if json:
        folders = dict(zip(runs, (*_RECIPES, _AUTO), strict=True))
        described = {name: run_facts(RunFolder(out / folder)) for name, folder in folders.items()}
        write_json({"runs": described, "files": [out / "accuracy.png"]})
        return
    _show(console, runs)
    others = ", ".join(str(out / name / "exemplars.png") for name in ("raw", "half_jpeg"))
    lines = {
        "Accuracy per phase": out / "accuracy.png",
        "Stored exemplars": out / "masked" / "exemplars.png",
        "The same as a page": out / "masked" / "exemplars.html",
        "Those of the other recipes": others,
    }
    for what, where in lines.items():
        console.print(f"{what}: {where}", soft_wrap=True)


def _show(console: "Console", runs: dict[str, list[dict[str, Any]]]) -> None:
    from exmem.train.metrics import average_incremental_accuracy, forgetting, last_accuracy

    rows = []
    for name, entries in runs.items():
        last = entries[-1]
        size = last["disk_bytes"] or last["mean_bytes"]
        cells = [f"{last['disk_bytes']:,}" if last["disk_bytes"] else f"{size:,} (means)"]
        cells.append(f"{size // last['exemplars']:,}" if last["exemplars"] else "-")
        for key in ("head", "ncm"):
            overall = [entry[key]["all"] for entry in entries]
            cells += [f"{average_incremental_accuracy(overall):.1%}", f"{last_accuracy(overall):.1%}"]
        lost = forgetting([entry["head"]["by_phase"] for entry in entries])
        seconds = sum(entry["seconds"] for entry in entries)
        rows.append((name, str(last["exemplars"]), *cells, f"{lost:.1%}", f"{seconds:.0f}"))
    headings = ("recipe", "exemplars", "bytes on disk", "each", "head avg", "last", "NCM avg", "last")
    print_table(console, (*headings, "forgetting", "seconds"), rows)
    for name, entries in runs.items():
        if number := len(entries[-1]["classes_without_exemplars"]):
            console.print(f"{name}: {number} classes have no exemplar; the nearest mean cannot predict them.")
