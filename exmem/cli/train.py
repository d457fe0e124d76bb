"""`exmem train`: the reference trainer on the user's own folder."""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from exmem.cli.loading import load_shown
from exmem.cli.output import make_console, make_progress, write_json
from exmem.cli.runs import run_facts
from exmem.errors import SchemaError
from exmem.recipes import Recipe
from exmem.recipes.recipe import read_document
from exmem.registry import Part
from exmem.train.config import TrainConfig
from exmem.train.ready import configuration_file

if TYPE_CHECKING:
    from rich.console import Console

    from exmem.train.advice import Stage
    from exmem.train.data import ImageText
    from exmem.train.folder import RunFolder
    from exmem.train.hidden import Advance

__all__ = ["parts", "show_stages", "train_command", "with_chosen_recipe"]

_AUTO = "auto"

parts = tyro.constructors.ConstructorRegistry()
"""How parts are read from the command line: NAME or NAME:OPTION=VALUE,..."""


@parts.primitive_rule
def _name(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[str] | None:
    if info.type is not str:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    )


@parts.primitive_rule
def _part(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Part] | None:
    if info.type is not Part:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME[:OPTION=VALUE,...]",
        instance_from_str=lambda words: Part.of(words[0]),
        is_instance=lambda value: isinstance(value, Part),
        str_from_instance=lambda part: [str(part)],
    )


def train_command(words: Sequence[str]) -> Callable[..., None]:
    """Return the command, whose defaults are those of the recipe and of the file that its words name."""
    given = {word.partition("=")[0].removeprefix("--recipe.") for word in words if word.startswith("--recipe.")}
    defaults, name = _named(words, given)

    def train(
        data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")],
        options: Annotated[TrainConfig, tyro.conf.arg(name="")] = defaults,
        *,
        out: Annotated[Path, tyro.conf.arg(metavar="RUN")],
        recipe: Annotated[str, tyro.conf.arg(name="recipe", metavar="NAME|FILE")] = name,
        config: Annotated[Path | None, tyro.conf.arg(metavar="NAME|FILE")] = None,
        trackers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = (),
        json: bool = False,
    ) -> None:
        """Learn the classes of a folder phase after phase, with an exemplar memory under a strict budget of bytes.

        The same command continues a run that was interrupted or killed.

        Parameters
        ----------
        data : Path
            Folder with train/ and test/: images in folders by class, or a metadata.jsonl (or .csv) with the columns
            file_name, text and label. Or a folder with the tables train and test (.csv, .tsv, .jsonl, .parquet), one
            such table with a column of splits, a folder that `datasets` saved, hf:OWNER/NAME[:CONFIG] on the hub, or
            what --data.layout names. `exmem data DATA` tells what is in it.
        options : TrainConfig
            What decides the numbers.
        out : Path
            Folder of the run: config.yaml, scenario.json, metrics.jsonl (a line a phase), memory/, summary.md, images
            of accuracies, bytes and exemplars, exemplars.html; state/ has adapter and head in safetensors.
        recipe : str
            What is stored of an exemplar, by name or from a YAML or JSON file; --recipe.scorer and so on refine it.
            auto is what a frozen probe finds best on the first phase's data (see `exmem advise`).
        config : Path, optional
            YAML or JSON file with options, nested as their names are; options of the command line come after it. Or the
            name of a ready one: masking_mm_imagenet_r_10 (the paper's protocol), cifar100_b0_inc10_icarl (PILOT's), ...
            A name that is unknown lists them all; each begins with what it is of, and what is ours.
        trackers : tuple of str
            What else is told of each phase: tensorboard, wandb, mlflow and others that accelerate knows, if installed.
        json : bool
            Answer with JSON at the end: accuracies and bytes after each phase, and the files; metrics.jsonl has the
            same, and more, as it comes.
        """
        options.recipe.check_used(given)
        _run(data, options, out, chooses=recipe == _AUTO, trackers=trackers, json=json)

    return train


def _named(words: Sequence[str], given: Collection[str]) -> tuple[TrainConfig, str]:
    """Return the options of the file and the recipe that words name, and its name, before parts of it were given."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--recipe", nargs="?")  # a value that lacks is told by the command itself
    early.add_argument("--config", nargs="?")
    named, _ = early.parse_known_args(list(words))
    document: dict[str, Any] = read_document(configuration_file(named.config)) if named.config else {}
    recipe = named.recipe or (document.pop("recipe") if document.get("recipe") == _AUTO else None)
    try:
        config = TrainConfig.from_json(document)
    except SchemaError as error:
        raise SchemaError(f"{named.config}: {error}") from error
    if recipe == _AUTO and given:
        parts_given = [f"--recipe.{part}" for part in sorted(given)]
        raise SchemaError(f"--recipe {_AUTO} is chosen whole; leave out {parts_given}, or name a recipe")
    if recipe == _AUTO:
        return config, _AUTO
    config = dataclasses.replace(config, recipe=Recipe.of(recipe)) if recipe else config
    return config, config.recipe.name


def _run(folder: Path, config: TrainConfig, out: Path, *, chooses: bool, trackers: Sequence[str], json: bool) -> None:
    import transformers

    from exmem.report.run import draw_run
    from exmem.train.folder import RunFolder
    from exmem.train.parts import load_run_backbone
    from exmem.train.ranks import Ranks
    from exmem.train.trainer import Trainer

    ranks = Ranks.joined(trackers=trackers, folder=out / "trackers")
    console = make_console(stderr=json)
    console.quiet = not ranks.is_first
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    learning, testing = load_shown(config, folder)
    run = RunFolder(out)
    if chooses:
        config = with_chosen_recipe(run, config, learning, console)
    backbone = load_run_backbone(config, console.print)
    trainer = Trainer(run, config, backbone, train=learning, test=testing, ranks=ranks)
    trainer.run(console)
    ranks.part()
    if not ranks.is_first:
        return
    draw_run(trainer)
    files = {
        "Summary": run.summary,
        "Metrics": run.metrics_file,
        "Accuracy": run.accuracy_image,
        "Stored exemplars": run.sheet,
        "The same as a page": run.page,
    }
    files = {what: path for what, path in files.items() if path.exists()}
    if json:
        write_json({"run": run_facts(run), "files": [*files.values()]})
        return
    for what, path in files.items():
        console.print(f"{what}: {path}", soft_wrap=True)


@contextlib.contextmanager
def show_stages(console: "Console") -> "Iterator[tuple[Stage, Callable[[str], None]]]":
    """Show a bar for the stage that goes on, where stdout is a terminal, and lines that stay above it."""
    with make_progress(console) as bar:
        task = bar.add_task("", total=None)

        def stage(text: str, total: int) -> "Advance":
            bar.reset(task, description=text, total=total)
            return lambda count: bar.advance(task, count)

        yield stage, lambda line: console.print(line, soft_wrap=True)


def with_chosen_recipe(run: "RunFolder", config: TrainConfig, learning: "ImageText", console: "Console") -> TrainConfig:
    """Return a configuration with the recipe that a run was begun with, or that is best by the data of its first phase.

    A run that goes on is not asked twice: what was chosen is in its folder.
    """
    from exmem.train.advice import choose_recipe
    from exmem.train.parts import load_run_backbone

    if run.is_run:
        begun, _ = run.described()
        known = dataclasses.replace(config, recipe=begun.recipe)
        if run.metrics() or not begun.differences(known):
            return known
    backbone = load_run_backbone(config, console.print)
    with show_stages(console) as (stage, tell):
        best = choose_recipe(config, backbone, learning, stage, tell)
    console.print(
        f"auto: {best.recipe.name} is best in {config.max_bytes} by the first phase's data, {best.accuracy:.1%}, "
        f"{best.exemplar_bytes:,.0f} bytes each",
        soft_wrap=True,
    )
    return dataclasses.replace(config, recipe=best.recipe)
