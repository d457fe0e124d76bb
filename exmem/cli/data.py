"""`exmem data`: what a folder of data holds, before anything is learnt from it."""

from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Column, Table

from exmem.cli.ending import FAILED
from exmem.cli.output import make_console, make_progress, write_json
from exmem.store import format_bytes

__all__ = ["data"]

_NAMED = 20  # broken files, and classes from either end, that are named


def data(
    place: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")],
    /,
    *,
    layout: Annotated[str, tyro.conf.arg(metavar="LAYOUT")] = "auto",
    image_column: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None,
    text_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "text",
    label_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "label",
    split_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "split",
    max_words: Annotated[int | None, tyro.conf.arg(metavar="WORDS")] = None,
    json: bool = False,
) -> None:
    """Check data of images, texts and labels: what it holds, what will be done to it, and what is broken.

    Every image is decoded. Exit code 0: all can be used. 1: something is broken or missing.

    Parameters
    ----------
    place : Path
        Folder with train/ and test/ in `imagefolder` form, or with a folder of images for each class in both; a folder
        with train and test as .csv, .tsv, .jsonl or .parquet, or one such table with a column of splits; a folder that
        `datasets` saved; hf:OWNER/NAME or hf:OWNER/NAME:CONFIG on the hub.
    layout : str
        How it lies: auto for these forms, undivided where it has no splits (about a fifth is held out for the test),
        or food101, imagenet_r, mm_imagenet_r, cifar100 or cub as they are distributed; with options as in
        undivided:test_ratio=0.2,seed=0.
    image_column : str, optional
        Name of the image column; file_name, or else image, when left out. Texts alone are learnt without one.
    text_column : str
        Name of the text column; it may be missing where images alone are learnt.
    label_column : str
        Name of the label column.
    split_column : str
        Name of the column that says train or test, where one table has both.
    max_words : int, optional
        Count the texts of more words; a limit of as many tokens cuts them at least.
    json : bool
        Answer with JSON, with everything that is broken.

    Raises
    ------
    SystemExit
        With code 1 when something is broken.
    """
    from exmem.train.data import Columns
    from exmem.train.data.checking import check_data

    columns = Columns(
        text=text_column,
        label=label_column,
        image=image_column,
        split=split_column,
        needs_text=None,
        needs_image=None,
    )
    with make_progress(make_console(stderr=True)) as bar:  # a terminal beside a pipe shows progress
        task = bar.add_task("Decoding images", total=None)
        report = check_data(
            place,
            columns,
            layout,
            max_words=max_words,
            advance=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        write_json(report)
    else:
        console = make_console()
        for line in _lines(report, text_column):
            console.print(line, soft_wrap=True)
        console.print(_classes(report, plain=not console.is_terminal))
        for line in _doubts(report):
            console.print(line, soft_wrap=True)
    if report["problems"]:
        raise SystemExit(FAILED)


def _lines(report: dict[str, Any], text_column: str) -> list[str]:
    from exmem.train.data.checking import TREATMENTS

    has_images = report["images"]["column"]
    lines = [f"{report['folder']}: {format_bytes(report['image_bytes'])} of images" if has_images else report["folder"]]
    for role, split in report["splits"].items():
        of_images = f" of {split['images']:,} images, {format_bytes(split['image_bytes'])}" if has_images else ""
        lines.append(f"  {role}{_where(role, split['folder'])}: {split['examples']:,} examples{of_images}")
    texts, images = report["texts"], report["images"]
    if texts["column"]:
        longest = f", the longest of {texts['longest_words']:,} words ({texts['longest_image']})"
        longer = f", {texts['longer']:,} of more than {texts['max_words']:,} words" if texts["max_words"] else ""
        lines.append(f"  texts: {texts['empty']:,} are empty{longest if texts['longest_image'] else ''}{longer}")
    else:
        lines.append(f"  texts: none, there is no column {text_column!r}: images alone can be learnt")
    if not has_images:
        lines.append("  images: none, there is no column of them: texts alone can be learnt")
    if images["side"]:
        side, modes = images["side"], ", ".join(f"{count:,} {mode}" for mode, count in images["modes"].items())
        lines.append(
            f"  images: sides from {side['min']:,} to {side['max']:,} pixels, median {side['median']:,}; {modes}"
        )
    return lines + [f"  {images[name]:,} {what}" for name, what in TREATMENTS.items() if images[name]]


def _where(role: str, place: str) -> str:
    """Say where a split lies, unless it is called as what it is for."""
    path = Path(place)
    if path.name in {role, f"{path.name.partition(' ')[0]} ({role})"}:
        return ""
    return f" (in {path.name}{'/' if path.is_dir() else ''})"


def _classes(report: dict[str, Any], *, plain: bool) -> Table:
    ranked = sorted(report["classes"].items(), key=lambda item: -item[1]["train"])
    table = Table("class", *(Column(role, justify="right") for role in ("train", "test")))
    if plain:
        table.box = None
    left_out = len(ranked) - 2 * _NAMED
    for rank, (name, count) in enumerate(ranked):
        if rank == _NAMED and left_out > 0:
            table.add_row(f"... {left_out:,} more ...", "", "")
        if rank < _NAMED or rank >= _NAMED + max(left_out, 0):
            table.add_row(name, f"{count['train']:,}", f"{count['test']:,}")
    return table


def _doubts(report: dict[str, Any]) -> list[str]:
    classes, single, untested = report["classes"], report["single_example_classes"], report["untested_classes"]
    sizes = [count["train"] for count in classes.values()]
    lines = [f"{len(classes):,} classes of {min(sizes):,} to {max(sizes):,} examples in train"] if sizes else []
    if single:
        lines.append(f"told: {len(single):,} classes have one example in train ({_some(single)})")
    if untested:
        lines.append(f"told: {len(untested):,} classes have no example in test ({_some(untested)})")
    lines += [f"told: {line}" for line in report["notes"]]
    lines += [f"warning: {line}" for line in report["warnings"]]
    problems = report["problems"]
    lines += [f"broken: {line}" for line in problems[:_NAMED]]
    if len(problems) > _NAMED:
        lines.append(f"... and {len(problems) - _NAMED:,} more; --json lists them all")
    return [*lines, f"{len(problems):,} broken" if problems else "nothing is broken"]


def _some(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''}"
