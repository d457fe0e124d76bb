"""`exmem advise`: what to store in so many bytes, measured before anything is trained."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from exmem.cli.output import make_console, print_table
from exmem.cli.train import parts
from exmem.errors import DataError
from exmem.store import format_bytes, parse_bytes
from exmem.train.config import BackboneConfig, DataConfig, TrainConfig, TunerConfig

if TYPE_CHECKING:
    from rich.console import Console

    from exmem.train.probe import Measured

__all__ = ["advise", "parts", "show"]

_RECIPE, _IMAGE = "recipe.yaml", "accuracy.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of the metadata.

    Parameters
    ----------
    text_column : str
        Column that holds the texts.
    label_column : str
        Column that holds the classes.
    """

    text_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "text"
    label_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "label"


def _named(name: str, metavar: str | None = None) -> Any:
    """Let an option be written as that of `exmem train` is."""
    return tyro.conf.arg(name=name, metavar=metavar)


def advise(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")],
    /,
    *,
    max_bytes: Annotated[str, tyro.conf.arg(metavar="BYTES")],
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("advice"),
    seed: int = 0,
    modalities: Annotated[Literal["both", "image", "text"], _named("data.modalities")] = "both",
    data: Columns = Columns(),
    blocks: Annotated[int, _named("tuner.blocks")] = 2,
    backbone: BackboneConfig = BackboneConfig(),  # noqa: B008
) -> None:
    """Say what to store of a folder of data in a budget: pixels, hidden tokens or features, and how many bits of them.

    A frozen probe: one pass of the backbone over a sample, then a classifier for each recipe on what would fit, at the
    budget, its half and its double. Takes minutes; nothing is trained. `exmem train DATA --recipe FOLDER/recipe.yaml`
    stores what is best at the budget.

    Parameters
    ----------
    folder : Path
        Folder with train/ and test/, as for `exmem train`; test/ is not looked at.
    max_bytes : str
        Strict budget of the memory on disk, such as 1MB.
    out : Path
        Folder for recipe.yaml, the best at the budget, and accuracy.png.
    seed : int
        Seed of the sample and of what is held out.
    modalities : {"both", "image", "text"}
        What is seen of an example.
    data : Columns
        Where texts and classes stand.
    blocks : int
        Last blocks of the backbone that would be tuned: hidden tokens are those below.
    backbone : BackboneConfig
        The backbone.
    """
    import transformers

    from exmem.report.advice import draw_advice
    from exmem.train.advice import advise as measure
    from exmem.train.advice import best_of
    from exmem.train.parts import load_run_backbone, load_run_data
    from exmem.train.progress import RunProgress

    seen = DataConfig(modalities=modalities, text_column=data.text_column, label_column=data.label_column)
    config = TrainConfig(max_bytes=max_bytes, seed=seed, data=seen, backbone=backbone, tuner=TunerConfig(blocks=blocks))
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; choose a folder with --out")
    console = make_console()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    learning, _ = load_run_data(config, folder)
    model = load_run_backbone(config, console.print)
    budgets = [parse_bytes(max_bytes) // 2, parse_bytes(max_bytes), 2 * parse_bytes(max_bytes)]
    with RunProgress(console, name="advise", total=0) as progress:
        measured = list(measure(model, learning, budgets, seed=seed, stage=progress.stage))
    show(console, measured)
    best = best_of([ones[1] for ones in measured])
    out.mkdir(parents=True, exist_ok=True)
    best.recipe.save(out / _RECIPE)
    draw_advice(measured, out / _IMAGE)
    console.print(f"Best at {max_bytes}: {best.recipe.name}, {best.accuracy:.1%}: {out / _RECIPE}")
    console.print(f"Accuracy over bytes: {out / _IMAGE}")


def show(console: "Console", measured: "Sequence[Sequence[Measured]]") -> None:
    """Print what was measured at half the budget, at it and at its double, best first; a line a recipe."""
    ranked = sorted(measured, key=lambda ones: -ones[1].accuracy)
    rows = []
    for ones in ranked:
        cells = [f"{one.exemplars:,}: {_accuracy(one)}" if one.accuracies else "none fits" for one in ones]
        rows.append((ones[1].recipe.name, f"{ones[1].exemplar_bytes:,.0f}", *cells, f"{ones[1].step_ms:,.0f} ms"))
    budgets = [format_bytes(one.max_bytes) for one in measured[0]]
    print_table(console, ("recipe", "bytes each", *(f"in {budget}" for budget in budgets), "step of 64"), rows)
    console.print(
        "Exemplars that fit, and the accuracy of a classifier fitted on nothing but these, with its spread over three "
        "samples; a step of 64 goes from the memory to features.",
        soft_wrap=True,
    )


def _accuracy(one: "Measured") -> str:
    return f"{one.accuracy:.1%} ± {float(np.std(one.accuracies)):.1%}"
