"""What share of a training step is the model's, and how long a phase takes beside decoding images each epoch.

    python -m bench.busy

Two phases of the demo data's first eight classes at 112 pixels, image with text, the last block tuned, half-size JPEG
in 250 kB. Model time is that of losses, gradients and the optimizer. The other way is what loops without kept hidden
tokens do (PILOT's among them): in each epoch images are decoded, and the whole backbone is run.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from exmem.cli.demo.stickers import StickersConfig, build_stickers
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText, load_imagefolder
from exmem.train.folder import RunFolder
from exmem.train.learner import Learner
from exmem.train.parts import load_run_backbone
from exmem.train.trainer import Trainer

_CLASSES = 8


@contextlib.contextmanager
def timed(owner: Any, name: str, into: list[float]) -> Iterator[None]:
    """Add up the seconds of a method's calls, the outermost ones."""
    method: Callable[..., Any] = getattr(owner, name)
    inside = False

    def clocked(*arguments: Any, **options: Any) -> Any:
        nonlocal inside
        if inside:
            return method(*arguments, **options)
        inside, began = True, time.perf_counter()
        try:
            return method(*arguments, **options)
        finally:
            inside = False
            into.append(time.perf_counter() - began)

    setattr(owner, name, clocked)
    try:
        yield
    finally:
        setattr(owner, name, method)


def phases(train: ImageText, test: ImageText, *, keep_hidden: bool) -> tuple[float, float]:
    """Seconds that the phases are trained, and those of the model among them."""
    document = {
        "recipe": "half_jpeg",
        "max_bytes": "250kB",
        "data": {"first_classes": 4, "increments": [4]},
        "backbone": {"image_size": 112},
        "tuner": {"blocks": 1},
        "loop": {"epochs": 3, "keep_hidden": keep_hidden},
    }
    config = TrainConfig.from_json(document)
    whole, model = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        trainer = Trainer(RunFolder(Path(place) / "run"), config, load_run_backbone(config), train=train, test=test)
        stack.enter_context(timed(Trainer, "_train", whole))
        stack.enter_context(timed(Learner, "loss", model))
        stack.enter_context(timed(torch.Tensor, "backward", model))
        stack.enter_context(timed(torch.optim.AdamW, "step", model))
        trainer.run(Console(quiet=True))
    return sum(whole), sum(model)


def main() -> None:
    os.environ["EXMEM_IMAGE_BYTES"] = "0"  # as loops do that keep no images either
    splits = load_imagefolder(build_stickers(StickersConfig(num_classes=22, max_train=70, max_test=25)))
    names = splits[0].class_names[:_CLASSES]
    few = [data.subset(np.flatnonzero(data.labels < _CLASSES)) for data in splits]
    train, test = (ImageText(data.paths, data.texts, data.labels, names, ids=data.ids) for data in few)
    seconds, model = phases(train, test, keep_hidden=True)
    print(f"kept hidden tokens: {seconds / 2:.1f} s a phase, {model / seconds:.1%} of it the model's")
    anew, _ = phases(train, test, keep_hidden=False)
    print(f"decoded and embedded in each epoch: {anew / 2:.1f} s a phase, {anew / seconds:.1f} times as long")


if __name__ == "__main__":
    main()
