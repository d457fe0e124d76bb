"""`exmem train`: the reference trainer on the user's own folder."""

import shutil
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
        Folder of the run: config.json, metrics.jsonl (a line a phase), memory/, accuracy.png.

    Raises
    ------
    ExmemError
        If the packages of the trainer are missing.
    """
    try:
        import transformers
        from rich.console import Console

        from exmem.backbones import Backbone, load_backbone
        from exmem.data import dinov2_small, load_imagefolder, minilm
        from exmem.train.folder import RunFolder
        from exmem.train.plots import draw_accuracy
        from exmem.train.trainer import Trainer
    except ImportError as error:
        raise ExmemError(f"the trainer needs more packages ({error}); pip install 'exmem[train]'") from error
    console = Console()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    learning, testing = load_imagefolder(data)
    backbone: Backbone
    if config.backbone == "vilt":
        if config.vision is None:
            raise ExmemError("vilt needs weights: give --vision a hub name such as dandelin/vilt-b32-mlm, or a folder")
        from transformers import AutoConfig

        frozen = AutoConfig.from_pretrained(config.vision).num_hidden_layers - config.tuned_blocks
        sizes = {"image_size": config.image_size, "max_text": config.max_text}
        backbone = load_backbone("vilt", config.vision, frozen_blocks=frozen, **sizes)
    else:
        vision = config.vision or dinov2_small(progress=console.print)
        text = config.text or minilm(progress=console.print)
        sizes = {"image_size": config.image_size, "max_text": config.max_text}
        backbone = load_backbone("joint", vision, text, trainable_blocks=config.tuned_blocks, **sizes)
    run = RunFolder(out)
    trainer = Trainer(run, config, backbone, train=learning, test=testing)
    entries = trainer.run(console)
    draw_accuracy({config.recipe: entries}, run.picture)
    shutil.rmtree(run.features, ignore_errors=True)
    console.print(f"Metrics: {run.path / 'metrics.jsonl'}; picture: {run.picture}", highlight=False)
