"""`exmem score`: one image and text through every scorer."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from exmem.cli.output import make_console, make_progress, write_json
from exmem.cli.show import output_files, write_sheet

__all__ = ["Model", "score"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The backbone that scores.

    Parameters
    ----------
    backbone : {"joint", "vilt", "clip", "siglip", "vit", "dinov2"}
        Family of the backbone.
    vision : str, optional
        Hub name or folder of the vision model, or of the whole model where image and text are one; the packaged
        DINOv2-S for joint, vit and dinov2 when left out.
    text_model : str, optional
        Hub name or folder of the text encoder of joint; the packaged MiniLM when left out.
    image_size : int
        Side of the image in pixels, a multiple of the patch side.
    tuned_blocks : int
        Last blocks that image and text run through together (joint).
    max_text : int
        Most text tokens, special ones included.
    """

    backbone: Literal["joint", "vilt", "clip", "siglip", "vit", "dinov2"] = "joint"
    vision: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    text_model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    image_size: int = 224
    tuned_blocks: int = 2
    max_text: int = 32


def score(
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")],
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")],
    model: Annotated[Model, tyro.conf.arg(name="")],
    *,
    layers: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT ...")] = (),
    quality: int = 75,
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER|FILE")] = Path(),
    json: bool = False,
) -> None:
    """Show what every scorer keeps of one image and its text, side by side; as an image and as a page.

    Parameters
    ----------
    image : Path
        An image file; its centre square is taken.
    text : str
        What belongs to the image.
    model : Model
        What scores.
    layers : tuple of int
        Layers of those scorers that take layers; negative ones count from the last. Their own when left out.
    quality : int
        JPEG quality of the kept patches, 1..100.
    out : Path
        A .png file, a .html file, or a folder for both (scores.png, scores.html).
    json : bool
        Answer with JSON: the files, and the patches and bytes that each scorer keeps.
    """
    import numpy as np
    import transformers

    from exmem.backbones import load_backbone
    from exmem.masking.scorers import SCORERS
    from exmem.report.view.scoring import score_sheet
    from exmem.train.data import ImageText

    files, console = output_files(out, name="scores"), make_console(stderr=json)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    pixels = ImageText((image,), (text,), np.zeros(1, np.int64), ("",)).image(0, model.image_size)
    backbone = load_backbone(
        model.backbone,
        model.vision,
        *([model.text_model] if model.backbone == "joint" else []),
        progress=console.print,
        image_size=model.image_size,
        trainable_blocks=model.tuned_blocks,
        max_text=model.max_text,
    )
    facts = {"image": f"{image.name}, its centre square at {model.image_size} px", "backbone": model.backbone}
    facts["weights"] = model.vision or "the packaged DINOv2-S"
    if model.backbone == "joint":
        facts["weights"] += f", {model.text_model or 'the packaged MiniLM'}"
    with make_progress(console) as progress:
        task = progress.add_task("Scoring", total=len(SCORERS))
        sheet = score_sheet(
            backbone,
            pixels,
            text,
            layers=layers or None,
            quality=quality,
            facts=facts,
            advance=lambda done: progress.advance(task, done),
        )
    write_sheet(sheet, files)
    if json:
        scorers = {card.title: card.measures for card in sheet.cards}
        about = {"image": image, "text": text, "backbone": model.backbone, "weights": facts["weights"]}
        write_json(about | {"scorers": scorers, "files": files})
        return
    for file in files:
        console.print(f"Scores: {file}", soft_wrap=True)
