"""`exmem advise`: what to store in so many bytes, measured before anything is trained."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from exmem.cli.loading import load_shown
from exmem.cli.output import check_folder, make_console, print_table, write_json
from exmem.cli.train import parts, show_stages
from exmem.cli.words import Bytes
from exmem.registry import Part
from exmem.store import format_bytes, parse_bytes
from exmem.train.config import BackboneConfig, DataConfig, TrainConfig, TunerConfig

if TYPE_CHECKING:
    from rich.console import Console

    from exmem.recipes import Recipe
    from exmem.train.stored_sample import Measured

__all__ = ["advise", "parts"]

_ALWAYS = ("modalities", "text_column", "label_column")  # are written, also as they are usually
_RECIPE, _IMAGE, _CONFIG = "recipe.yaml", "accuracy.png", "tradeoff.yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is seen of the data.

    Parameters
    ----------
    modalities : {"both", "image", "text"}
        What is seen of an example.
    layout : Part
        How the data lies, as for `exmem train`.
    image_column : str, optional
        Column that holds the images; file_name, or else image, when left out.
    text_column : str
        Column that holds the texts.
    label_column : str
        Column that holds the classes.
    split_column : str
        Column that says train or test, where one table has both.
    skip_bad : bool
        Leave out examples that are broken.
    """

    modalities: Literal["both", "image", "text"] = "both"
    layout: Part = Part("auto")
    image_column: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    text_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "text"
    label_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "label"
    split_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "split"
    skip_bad: bool = False


def advise(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")],
    /,
    *,
    max_bytes: Bytes,
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("advice"),
    seed: int = 0,
    data: Data = Data(),
    blocks: Annotated[int, tyro.conf.arg(name="tuner.blocks")] = 2,
    backbone: BackboneConfig = BackboneConfig(),  # noqa: B008
    json: bool = False,
) -> None:
    """Say what to store of a folder of data in a budget: pixels, hidden tokens or features, and how many bits of them.

    A frozen probe: one pass of the backbone over a sample, then a classifier for each recipe on what would fit, at the
    budget, its half and its double. Takes minutes; nothing is trained. `exmem train DATA --recipe FOLDER/recipe.yaml`
    stores what is best at the budget; give it the same options. `exmem tradeoff FOLDER/tradeoff.yaml --out OUT`
    measures the same with a page, and more where the file is made to say more: seeds, budgets, runs.

    Parameters
    ----------
    folder : Path
        Data as for `exmem train`; the test is not looked at.
    max_bytes : str
        Strict budget of the memory on disk, such as 1MB.
    out : Path
        Folder for recipe.yaml, the best at the budget, accuracy.png, and tradeoff.yaml; those of before are replaced.
    seed : int
        Seed of the sample and of what is held out.
    data : Data
        What is seen of the data.
    blocks : int
        Last blocks of the backbone that would be tuned: hidden tokens are those below.
    backbone : BackboneConfig
        The backbone.
    json : bool
        Answer with JSON instead of a table.
    """
    import transformers

    from exmem.report.advice import draw_advice
    from exmem.train.advice import advise as measure
    from exmem.train.advice import best_of, candidates, merit
    from exmem.train.parts import load_run_backbone

    config = TrainConfig(
        max_bytes=max_bytes,
        seed=seed,
        data=DataConfig(**{field.name: getattr(data, field.name) for field in dataclasses.fields(data)}),
        backbone=backbone,
        tuner=TunerConfig(blocks=blocks),
    )
    check_folder(out)
    console = make_console(stderr=json)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    learning, _ = load_shown(config, folder)
    model = load_run_backbone(config, console.print)
    budget = parse_bytes(max_bytes)
    with show_stages(console) as (stage, tell):
        budgets = [budget // 2, budget, 2 * budget]
        measured = list(measure(model, learning, candidates(model), budgets, seed=seed, stage=stage, tell=tell))
    measured.sort(key=lambda ones: merit(ones[1]), reverse=True)
    if not json:
        _show(console, measured)
    at_budget = [ones[1] for ones in measured]
    best = best_of(at_budget)
    level = [one.recipe.name for one in at_budget if one is not best and _is_level(best, one)]
    out.mkdir(parents=True, exist_ok=True)
    best.recipe.save(out / _RECIPE)
    draw_advice(measured, out / _IMAGE)
    text = _configuration(config, folder, [ones[1].recipe for ones in measured], budgets)
    (out / _CONFIG).write_text(text, encoding="utf-8")
    if json:
        document = {
            "best": best.recipe.name,
            "not_told_apart": level,
            "recipe": out / _RECIPE,
            "image": out / _IMAGE,
            "tradeoff": out / _CONFIG,
            "measured": [one._asdict() | {"recipe": one.recipe.to_json()} for ones in measured for one in ones],
        }
        write_json(document)
        return
    console.print(f"Best at {max_bytes}: {best.recipe.name}, {best.accuracy:.1%}: {out / _RECIPE}", soft_wrap=True)
    if level:
        why = "the 95 % interval of the difference holds 0"
        console.print(f"Not told apart from it by these samples ({why}): {', '.join(level)}", soft_wrap=True)
    console.print(f"Accuracy over bytes: {out / _IMAGE}", soft_wrap=True)
    console.print(f"The same as a trade-off, to go on from: {out / _CONFIG}", soft_wrap=True)


def _configuration(config: TrainConfig, folder: Path, recipes: "Sequence[Recipe]", budgets: Sequence[int]) -> str:
    """Write what was measured as a configuration of `exmem tradeoff`."""
    from exmem.recipes.recipe import document_text
    from exmem.train.data.layouts.places import whole_path

    whole = config.to_json()
    for key in ("vision", "text"):  # folders, from wherever the file is read
        if whole["backbone"][key] is not None and Path(whole["backbone"][key]).is_dir():
            whole["backbone"][key] = str(Path(whole["backbone"][key]).absolute())
    usual = DataConfig()
    seen = {
        field.name: whole["data"][field.name]
        for field in dataclasses.fields(Data)
        if field.name in _ALWAYS or getattr(config.data, field.name) != getattr(usual, field.name)
    }
    place = whole_path(folder)
    document = {
        "data": {place.stem if place.is_file() else place.name: {"folder": str(place), **seen}},
        "recipes": [recipe.to_json() for recipe in recipes],
        "budgets": list(budgets),
        "seeds": [config.seed],
        "kinds": ["probe"],
        "probe": {"folds": True},
        "base": {"backbone": whole["backbone"], "tuner": {"blocks": config.tuner.blocks}},
    }
    return document_text(document, Path(_CONFIG).suffix)


def _show(console: "Console", measured: "Sequence[Sequence[Measured]]") -> None:
    """Print what was measured at half the budget, at it and at its double; a line a recipe."""
    rows = []
    for ones in measured:
        cells = [f"{one.exemplars:,}: {_accuracy(one)}" if one.accuracies else "none fits" for one in ones]
        rows.append((ones[1].recipe.name, f"{ones[1].exemplar_bytes:,.0f}", *cells, f"{ones[1].step_ms:,.0f} ms"))
    budgets = [format_bytes(one.max_bytes) for one in measured[0]]
    print_table(console, ("recipe", "bytes each", *(f"in {budget}" for budget in budgets), "step of 64"), rows)
    console.print(
        "Exemplars that fit, and the accuracy of a classifier fitted on nothing but these, with its spread over "
        "several samples; a step of 64 goes from the memory to features.",
        soft_wrap=True,
    )
    if any(_is_all(one) for ones in measured for one in ones):
        sample = max(one.sample for ones in measured for one in ones)
        console.print(
            f"* The memory held the whole sample of {sample:,}: what more exemplars would gain is not measured.",
            soft_wrap=True,
        )


def _is_level(best: "Measured", other: "Measured") -> bool:
    """Say whether the samples, which are the same for both, leave open which of two is better."""
    from exmem.report.tradeoff.frontier import interval

    if not other.accuracies:
        return False
    return not interval(np.subtract(best.accuracies, other.accuracies)).low > 0


def _accuracy(one: "Measured") -> str:
    return f"{one.accuracy:.1%} ± {float(np.std(one.accuracies)):.1%}{'*' * _is_all(one)}"


def _is_all(one: "Measured") -> bool:
    """Say whether all of the sample was held, and more would fit."""
    return one.held == one.sample < one.exemplars
