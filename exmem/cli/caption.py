"""`exmem caption`: texts for a folder of images, by a model."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from exmem.cli.ending import FAILED
from exmem.cli.output import make_console, make_progress, write_json
from exmem.errors import DataError, SchemaError
from exmem.tokens.checks import whole_number

if TYPE_CHECKING:
    from exmem.train.captioner import Captioner
    from exmem.train.data.captions import CaptionFolder

__all__ = ["caption"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The model, and how it is asked.

    Parameters
    ----------
    model : str
        Hub name or folder of a model of transformers that makes text of images: InstructBLIP (the paper's), BLIP, GIT,
        LLaVA, Qwen-VL, ...
    prompt : str, optional
        What the model is asked; for models that take instructions "Write a short description for the image.", and
        nothing for others, when left out.
    max_new_tokens : int
        Most tokens of a text.
    device : str
        Such as cpu, cuda or cuda:1; auto is a GPU if there is one.
    dtype : {"auto", "float32", "float16", "bfloat16"}
        Of the weights; auto is float32 on a CPU, and 16 bits on a GPU.
    """

    model: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "Salesforce/instructblip-vicuna-7b"
    prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    max_new_tokens: int = 40
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        whole_number(self.max_new_tokens, "--max-new-tokens", least=1)

    def load(self) -> "Captioner":
        """Load it, which takes torch."""
        import transformers

        from exmem.train.captioner import Captioner

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        return Captioner(
            self.model,
            prompt=self.prompt,
            max_new_tokens=self.max_new_tokens,
            device=self.device,
            dtype=self.dtype,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Columns of the metadata.

    Parameters
    ----------
    text_column : str
        Column that gets the texts.
    label_column : str
        Column of the classes in metadata that are written anew.
    """

    text_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "text"
    label_column: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "label"

    def __post_init__(self) -> None:
        if len({"file_name", self.text_column, self.label_column}) < 3:
            columns = f"{self.text_column!r} and {self.label_column!r}"
            raise SchemaError(f"--data.text-column, --data.label-column: expected two beside file_name, got {columns}")


def caption(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    /,
    *,
    model: Annotated[Model, tyro.conf.arg(name="")] = Model(),
    batch: int = 16,
    overwrite: bool = False,
    data: Data = Data(),
    json: bool = False,
) -> None:
    """Write what a model sees in the images of a folder into its metadata, as texts that a run can learn from.

    In train/ and test/, or in the folder itself without them, a metadata.jsonl or .csv gets the texts that it lacks;
    where there is none, a metadata.jsonl is written, folders of images being classes. It is put in place whole, once
    all its texts are there. The same command continues after an interrupt or a kill. Exit code 1: an image is broken,
    and all others have texts.

    Parameters
    ----------
    folder : Path
        Folder with images, or with train/ and test/.
    model : Model
        The model, and how it is asked.
    batch : int
        Images at a time.
    overwrite : bool
        Write all texts anew, those that are there too.
    data : Data
        Columns of the metadata.
    json : bool
        Answer with JSON: what was written where, and what is broken.

    Raises
    ------
    SystemExit
        With code 1 when an image is broken.
    """
    from exmem.train.data.captions import CaptionFolder, folders_of

    whole_number(batch, "--batch", least=1)
    console, told = make_console(stderr=json), make_console(stderr=True)
    settings = {key: value for key, value in dataclasses.asdict(model).items() if key != "device"}
    columns = dataclasses.asdict(data)
    with contextlib.ExitStack() as stack:
        folders = [
            stack.enter_context(CaptionFolder.opened(place, settings, **columns, overwrite=overwrite))
            for place in folders_of(folder.expanduser().absolute())
        ]
        describe = None
        if todo := sum(len(names) for one in folders for names in one.batches(batch)):
            told.print(f"loading {model.model}", soft_wrap=True)
            describe = model.load()
        bar = stack.enter_context(make_progress(told))
        task = bar.add_task("describing images", total=todo)
        written = []
        for one in folders:
            before = len(one.written)
            if describe is not None:
                _describe(one, describe, batch, lambda count: bar.advance(task, count))
            one.publish()
            again = f" ({before:,} of them before)" if before else ""
            console.print(f"{one.metadata}: {len(one.written):,} texts were written{again}", soft_wrap=True)
            for line in one.told:
                console.print(f"warning: {line}", soft_wrap=True)
            texts = {"written": len(one.written), "before": before}
            written.append({"metadata": one.metadata, **texts, "warnings": one.told})
    broken = [line for one in folders for line in one.broken]
    for line in broken:
        console.print(f"broken: {line}", soft_wrap=True)
    if json:
        write_json({"folders": written, "broken": broken})
    if broken:
        console.print(f"{len(broken):,} broken", soft_wrap=True)
        raise SystemExit(FAILED)


def _describe(folder: "CaptionFolder", describe: "Captioner", batch: int, advance: Callable[[int], None]) -> None:
    """Describe what a folder lacks, and note what of it is broken."""
    from exmem.train.data.images import read_image

    for names in folder.batches(batch):
        images = {}
        for name in names:
            try:
                images[name] = read_image(folder.path(name), describe.side)
            except DataError as error:
                folder.broken.append(str(error))
        if images:
            folder.note(dict(zip(images, describe([*images.values()]), strict=True)))
        advance(len(names))
