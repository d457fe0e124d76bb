"""`exmem show`: a sheet of stored exemplars."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from exmem.cli.output import check_folder, make_console, make_progress, write_json
from exmem.cli.places import find_store
from exmem.errors import DataError, SchemaError, StoreNotFoundError
from exmem.memory import ExemplarMemory
from exmem.report.view.exemplars import Known, choose_slots, exemplar_sheet, slots_of_classes
from exmem.report.view.images import parse_grid
from exmem.report.view.sheet import Sheet

if TYPE_CHECKING:
    from exmem.train.folder import RunFolder

__all__ = ["output_files", "show", "write_sheet"]

_ENDINGS = (".png", ".html")


def show(  # noqa: PLR0913 - what may be shown, each with a default
    store: Annotated[Path, tyro.conf.arg(metavar="STORE|RUN")],
    /,
    *,
    slots: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT ...")] = (),
    classes: Annotated[tuple[str, ...], tyro.conf.arg(name="class", metavar="NAME ...")] = (),
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER|FILE")] = Path(),
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    scores: bool = True,
    most: int = 24,
    grid: Annotated[str | None, tyro.conf.arg(metavar="ROWSxCOLUMNS")] = None,
    json: bool = False,
) -> None:
    """Show what is stored of exemplars: patches in their places, words, bytes; as an image and as a page.

    Of a run of the trainer also the originals, the words that were lost, class names and scores.

    Parameters
    ----------
    store : Path
        Folder of any memory, or of a run.
    slots : tuple of int
        Exemplars to show.
    classes : tuple of str
        Classes to show, by name or number.
    out : Path
        A .png file, a .html file, or a folder for both (exemplars.png, exemplars.html).
    data : Path, optional
        Folder of the data that a run was trained with: gives the originals.
    scores : bool
        Whether the originals are scored again, with the scorer and the last checkpoint of the run.
    most : int
        Exemplars shown, at most, where no slots are given: the first of each class, then the second, and so on.
    grid : str, optional
        Rows and columns of patches, such as 12x16; as square as can be when left out.
    json : bool
        Answer with JSON: the files, and the bytes and tokens of each exemplar.

    Raises
    ------
    SchemaError
        If slots and classes are both given.
    """
    files, console = output_files(out, name="exemplars"), make_console(stderr=json)
    shape = parse_grid(grid) if grid is not None else None
    if slots and classes:
        raise SchemaError("expected --slots or --class, got both; give one of them")
    place, run = find_store(store)
    if run is not None and not (place / "zarr.json").exists():
        raise StoreNotFoundError(f"{run.path}: this run has no memory, or none yet")
    names = tuple(run.described()[1]["classes"]) if run is not None else ()
    with ExemplarMemory.open(place) as memory:
        among = slots_of_classes(memory, classes, names) if classes else None
        chosen = list(dict.fromkeys(slots)) or choose_slots(memory, most=most, among=among)
    with make_progress(console) as progress:
        task = progress.add_task("Reading exemplars", total=len(chosen))

        def tell(text: str) -> None:
            progress.update(task, description=text)

        known = _known(run, chosen, data=data, scores=scores, tell=tell)
        tell("Reading exemplars")
        sheet = exemplar_sheet(place, chosen, known=known, grid=shape, advance=lambda n: progress.advance(task, n))
        tell("Drawing")
        write_sheet(sheet, files)
    if json:
        write_json({"exemplars": [card.measures for card in sheet.cards], "notes": sheet.notes, "files": files})
        return
    for file in files:
        console.print(f"Exemplars: {file}", soft_wrap=True)


def output_files(out: Path, *, name: str) -> list[Path]:
    """Return the files that `--out` stands for: a .png or .html file, or both of this name in a folder.

    Raises
    ------
    DataError
        If it is a file of another kind, or a new name with another ending, which could be meant as one.
    """
    if out.suffix.lower() in _ENDINGS:
        check_folder(out.parent)
        return [out]
    if not out.is_dir() and (out.suffix or out.exists()):
        endings = " or ".join(_ENDINGS)
        unless = "choose another place with --out" if out.exists() else "make the folder first if it is to be one"
        raise DataError(f"{out}: expected a folder, or a file that ends in {endings}; {unless}")
    check_folder(out)
    return [out / f"{name}{ending}" for ending in _ENDINGS]


def write_sheet(sheet: Sheet, files: Sequence[Path]) -> None:
    """Write a sheet as an image, as a page, or as both, by the endings of the files.

    Raises
    ------
    DataError
        If a file cannot be written.
    """
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix.lower() == ".png":  # neither way needs the packages of the other
                from exmem.report.view.drawing import draw_sheet

                draw_sheet(sheet, file)
            else:
                from exmem.report.view.page import write_page

                write_page(sheet, file)
        except OSError as error:
            raise DataError(f"{file}: cannot be written: {error}; choose another place with --out") from error


def _known(
    run: "RunFolder | None",
    slots: list[int],
    *,
    data: Path | None,
    scores: bool,
    tell: Callable[[str], None],
) -> Known:
    if run is None:
        why = "Only what is stored is shown: this memory belongs to no run, so originals, words and scores are unknown."
        return Known(notes=[why])
    import transformers

    from exmem.report.run import known_of_folder

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    return known_of_folder(run, slots, data=data, scores=scores, progress=tell)
