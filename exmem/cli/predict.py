"""`exmem predict` and `exmem eval`: what a run learnt, asked about other images."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from exmem.cli.ending import FAILED
from exmem.cli.loading import load_shown
from exmem.cli.output import make_console, make_progress, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from exmem.train.data import ImageText
    from exmem.train.predictor import Predictor

__all__ = ["evaluate", "predict"]


def predict(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")],
    /,
    *,
    text: Annotated[str, tyro.conf.arg(metavar="TEXT")] = "",
    json: bool = False,
) -> None:
    """Say which class images are of, or a text alone, by what a run has learnt after its last finished phase.

    Exit code 1: an image is broken, and all others are told.

    Parameters
    ----------
    run : Path
        Folder of a run.
    images : tuple of Path
        Image files, one or more; of each the centre is taken, as in training. None where a run learnt from texts alone.
    text : str
        The text that belongs to the images, where the run learnt from texts.
    json : bool
        Answer with JSON instead of lines: the classes, and which images are broken.

    Raises
    ------
    SystemExit
        With code 1 when an image is broken.
    """
    import numpy as np

    from exmem.errors import SchemaError
    from exmem.train.data import ImageText
    from exmem.train.parts import columns_of

    if not images and not text:
        raise SchemaError("expected one or more images, or a --text where the run learnt from texts alone, got none")
    told = make_console(stderr=True)
    predictor = _loaded(run, told)
    seen = columns_of(predictor.config)
    if images and not seen.needs_image:
        raise SchemaError(f"{run}: it learnt from texts alone; give a --text, and no images")
    if text and not seen.needs_text:
        raise SchemaError(f"{run}: it learnt from images alone; leave out --text")
    if len(predictor.seen) < len(predictor.class_names):
        told.print(f"{run}: it has learnt {len(predictor.seen)} of its {len(predictor.class_names)} classes so far")
    named_well, broken = _named_well(images)
    files: tuple[Path | None, ...] = named_well if images else (None,)
    ids = [text if path is None else str(path) for path in files]
    given = ImageText(files, [text] * len(files), np.zeros(len(files), np.int64), predictor.class_names, ids=ids)
    rows, bad = _decoded(given, predictor.config.backbone.image_size) if images else ([0], [])
    broken += bad
    with make_progress(told) as bar:
        task = bar.add_task("looking at images", total=len(rows))
        classes = predictor.predict(given.subset(rows), advance=lambda count: bar.advance(task, count))
    named = [(row, predictor.class_names[number]) for row, number in zip(rows, classes.tolist(), strict=True)]
    if json:
        answers = [{"image": files[row], "text": text, "class": name} for row, name in named]
        write_json({"predictions": answers, "broken": broken})
    else:
        console = make_console()
        for row, name in named:
            console.print(f"{ids[row]}: {name}", soft_wrap=True)
    for line in broken:
        told.print(f"broken: {line}", soft_wrap=True)
    if broken:
        raise SystemExit(FAILED)


def _named_well(images: "tuple[Path, ...]") -> tuple[tuple[Path, ...], list[str]]:
    """Return the files whose names can be written, and what is wrong with the others."""
    well, broken = [], []
    for path in images:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            broken.append(f"{str(path)!a}: expected a name in UTF-8; rename the file")
        else:
            well.append(path)
    return tuple(well), broken


def _decoded(data: "ImageText", side: int) -> tuple[list[int], list[str]]:
    """Return the rows whose images can be decoded, which are then held, and what is wrong with the others."""
    from exmem.errors import DataError

    def problem(row: int) -> str | None:
        try:
            data.images([row], side)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        problems = list(pool.map(problem, range(len(data))))
    return [row for row, said in enumerate(problems) if said is None], [said for said in problems if said is not None]


def evaluate(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")],
    /,
    *,
    json: bool = False,
) -> None:
    """Measure a run after its last finished phase on the test examples of a folder, of the classes that it has learnt.

    Parameters
    ----------
    run : Path
        Folder of a run.
    folder : Path
        Data of the run's classes, in the form that the run was told of, whole; the test is measured.
    json : bool
        Answer with JSON, with the accuracy on the classes of each phase.
    """
    told = make_console(stderr=True)
    predictor = _loaded(run, told)
    _, test = load_shown(predictor.config, folder)
    learnt = {predictor.class_names[number] for number in predictor.seen}
    there = [test.class_names[label] for label in test.labels.tolist() if test.class_names[label] in learnt]
    counts = {"examples": len(there), "classes": len({*there})}
    with make_progress(told) as bar:
        task = bar.add_task("measuring", total=len(there))
        measured = predictor.measure(test, advance=lambda count: bar.advance(task, count))
    if json:
        write_json({**counts, **measured})
        return
    console = make_console()
    by_phase = measured["by_phase"]
    assert isinstance(by_phase, list)
    if not there:
        console.print("no example is of a class that the run has learnt", soft_wrap=True)
        return
    console.print(
        f"{measured['all']:.1%} right of {len(there):,} examples of {counts['classes']} classes", soft_wrap=True
    )
    for number, share in enumerate(by_phase, 1):
        shown = "none" if math.isnan(share) else f"{share:.1%}"
        console.print(f"  classes of phase {number}: {shown}", soft_wrap=True)


def _loaded(run: Path, told: "Console") -> "Predictor":
    import transformers

    from exmem.train.predictor import Predictor

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return Predictor(run, tell=told.print)
