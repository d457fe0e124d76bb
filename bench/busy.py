"""What share of a step is the model's; how long a phase takes beside decoding in each epoch, or with compiled blocks.

    python -m bench.busy

Two phases of the demo data's first eight classes at 112 pixels, image with text, the last block tuned, half-size JPEG
in 250 kB. Model time is that of losses, gradients and the optimizer. The other way is what loops without kept hidden
tokens do (PILOT's among them): in each epoch images are decoded, and the whole backbone is run. Of compiled blocks the
second phase counts, for in the first they are compiled.
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
from exmem.train.data import ImageText, load_data
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


@contextlib.contextmanager
def before(owner: Any, name: str, act: Callable[[], object]) -> Iterator[None]:
    """Do something before each call of a method."""
    method: Callable[..., Any] = getattr(owner, name)

    def called(*arguments: Any, **options: Any) -> Any:
        act()
        return method(*arguments, **options)

    setattr(owner, name, called)
    try:
        yield
    finally:
        setattr(owner, name, method)


def second_phase(train: ImageText, test: ImageText, **loop: bool) -> tuple[float, float]:
    """Seconds that the second phase is trained, and those of the model among them."""
    document = {
        "recipe": "half_jpeg",
        "max_bytes": "250kB",
        "data": {"first_classes": 4, "increments": [4]},
        "backbone": {"image_size": 112},
        "tuner": {"blocks": 1},
        "loop": {"epochs": 3, **loop},
    }
    config = TrainConfig.from_json(document)
    whole, model = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        trainer = Trainer(RunFolder(Path(place) / "run"), config, load_run_backbone(config), train=train, test=test)
        stack.enter_context(timed(Trainer, "_train", whole))
        stack.enter_context(timed(Learner, "loss", model))
        stack.enter_context(timed(torch.Tensor, "backward", model))
        stack.enter_context(timed(torch.optim.AdamW, "step", model))
        stack.enter_context(before(Trainer, "_train", model.clear))
        trainer.run(Console(quiet=True))
    return whole[-1], sum(model)


def main() -> None:
    os.environ["EXMEM_IMAGE_BYTES"] = "0"  # as loops do that keep no images either
    splits = load_data(build_stickers(StickersConfig(num_classes=22, max_train=70, max_test=25)))
    names = splits[0].class_names[:_CLASSES]
    few = [data.subset(np.flatnonzero(data.labels < _CLASSES)) for data in splits]
    train, test = (ImageText(data.paths, data.texts, data.labels, names, ids=data.ids) for data in few)
    seconds, model = second_phase(train, test)
    print(f"kept hidden tokens: {seconds:.1f} s, {model / seconds:.1%} of it the model's")
    compiled, _ = second_phase(train, test, compile=True)
    print(f"compiled blocks: {compiled:.1f} s, {seconds / compiled:.2f} times as fast")
    anew, _ = second_phase(train, test, keep_hidden=False)
    print(f"decoded and embedded in each epoch: {anew:.1f} s, {anew / seconds:.1f} times as long")


if __name__ == "__main__":
    main()
