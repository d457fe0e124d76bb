"""`exmem score`: one picture and text through every scorer."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import Progress

from exmem.cli.show import write_sheet

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
        Side of the picture in pixels, a multiple of the patch side.
    tuned_blocks : int
        Last blocks that image and text run through together (joint).
    max_text : int
        Most text tokens, special ones included.
    """

    backbone: Literal["joint", "vilt", "clip", "siglip", "vit", "dinov2"] = "joint"
    vision: str | None = None
    text_model: str | None = None
    image_size: int = 224
    tuned_blocks: int = 2
    max_text: int = 32


def score(
    image: Annotated[Path, tyro.conf.Positional],
    text: Annotated[str, tyro.conf.Positional],
    model: Annotated[Model, tyro.conf.arg(name="")],
    *,
    layers: tuple[int, ...] = (),
    quality: int = 75,
    out: Path = Path(),
) -> None:
    """Show what every scorer keeps of one picture and its text, side by side; as a picture and as a page.

    Parameters
    ----------
    image : Path
        The picture; its centre square is taken.
    text : str
        Its text.
    model : Model
        What scores.
    layers : tuple of int
        Layers of those scorers that take layers; negative ones count from the last. Their own when left out.
    quality : int
        JPEG quality of the kept patches, 1..100.
    out : Path
        A .png file, a .html file, or a folder for both (scores.png, scores.html).
    """
    import numpy as np
    import transformers

    from exmem.backbones import load_backbone
    from exmem.masking.scorers import SCORERS
    from exmem.report.view.scoring import score_sheet
    from exmem.train.data import ImageText

    console = Console()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    picture = ImageText((image,), (text,), np.zeros(1, np.int64), ("",)).image(0, model.image_size)
    backbone = load_backbone(
        model.backbone,
        model.vision,
        *([model.text_model] if model.backbone == "joint" else []),
        progress=console.print,
        image_size=model.image_size,
        trainable_blocks=model.tuned_blocks,
        max_text=model.max_text,
    )
    facts = {"picture": f"{image.name}, its centre square at {model.image_size} px", "backbone": model.backbone}
    facts["weights"] = model.vision or "the packaged DINOv2-S"
    if model.backbone == "joint":
        facts["weights"] += f", {model.text_model or 'the packaged MiniLM'}"
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Scoring", total=len(SCORERS))
        sheet = score_sheet(
            backbone,
            picture,
            text,
            layers=layers or None,
            quality=quality,
            facts=facts,
            advance=lambda done: progress.advance(task, done),
        )
    for path in write_sheet(sheet, out, name="scores"):
        console.print(f"Scores: {path}", highlight=False, soft_wrap=True)
