"""`exmem train`: the reference trainer on the user's own folder."""

from pathlib import Path
from typing import Annotated

import tyro

from exmem.errors import ExmemError
from exmem.train.config import TrainConfig

__all__ = ["train"]


def train(
    data: Annotated[Path, tyro.conf.Positional],
    config: Annotated[TrainConfig, tyro.conf.arg(name="")],
    *,
    out: Path,
) -> None:
    """Learn the classes of a folder phase after phase, with an exemplar memory under a strict budget of bytes.

    The same command continues a run that was interrupted or killed.

    Parameters
    ----------
    data : Path
        Folder with train/ and test/ in `imagefolder` form: pictures, and a metadata.jsonl (or .csv) with the columns
        file_name, text and label.
    config : TrainConfig
        What decides the numbers.
    out : Path
        Folder of the run: config.json, metrics.jsonl (a line a phase), memory/, accuracy.png, exemplars.png.

    Raises
    ------
    ExmemError
        If ViLT is asked for without weights.
    """
    import torch
    import transformers
    from rich.console import Console

    from exmem.backbones import load_backbone
    from exmem.data import dinov2_small, load_imagefolder, minilm
    from exmem.train.folder import RunFolder
    from exmem.train.sheet import draw_run
    from exmem.train.trainer import Trainer

    console = Console()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    learning, testing = load_imagefolder(data)
    names: tuple[str | Path, ...]
    if config.backbone == "joint":
        names = config.vision or dinov2_small(progress=console.print), config.text or minilm(progress=console.print)
    elif config.vision is None:
        raise ExmemError("vilt needs weights: give --vision a hub name such as dandelin/vilt-b32-mlm, or a folder")
    else:
        names = (config.vision,)
    torch.manual_seed(config.seed)  # for weights that a checkpoint lacks
    backbone = load_backbone(
        config.backbone,
        *names,
        image_size=config.image_size,
        trainable_blocks=config.tuned_blocks,
        max_text=config.max_text,
    )
    run = RunFolder(out)
    trainer = Trainer(run, config, backbone, train=learning, test=testing)
    trainer.run(console)
    draw_run(trainer)
    for what, path in (("Metrics", run.metrics_file), ("Accuracy", run.picture), ("Stored exemplars", run.sheet)):
        if path.exists():
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True)
