"""`exmem train`: the reference trainer on the user's own folder."""

from pathlib import Path
from typing import Annotated

import tyro

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
        Folder of the run: config.json, metrics.jsonl (a line a phase), memory/, accuracy.png, exemplars.png,
        exemplars.html.
    """
    import transformers
    from rich.console import Console

    from exmem.report.drawn_run import draw_run
    from exmem.train.data import load_imagefolder
    from exmem.train.folder import RunFolder
    from exmem.train.making import configured_backbone
    from exmem.train.trainer import Trainer

    console = Console()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    learning, testing = load_imagefolder(data)
    backbone = configured_backbone(config, console.print)
    run = RunFolder(out)
    trainer = Trainer(run, config, backbone, train=learning, test=testing)
    trainer.run(console)
    draw_run(trainer)
    pictures = {"Accuracy": run.picture, "Stored exemplars": run.sheet, "The same as a page": run.page}
    for what, path in {"Metrics": run.metrics_file, **pictures}.items():
        if path.exists():
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True)
