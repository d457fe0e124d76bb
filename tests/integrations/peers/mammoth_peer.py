"""mammoth from its source with our buffer in the place of its own, and data that look like its: a plugin of pytest.

`python -m pytest -p tests.integrations.peers.mammoth_peer SOURCE/tests/test_er_example.py` runs a test of mammoth's so.
mammoth's modules are called `main`, `utils`, `models` and `datasets`, so it runs in a process of its own.
"""

import functools
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

from exmem.integrations.mammoth import Buffer
from tests.integrations.peers.environment import peer_source, prepare

__all__ = ["BUFFERS", "Kept", "prepared"]

BUFFERS: list[Any] = []  # all that were made


def _data(count: int, classes: int, *shape: int) -> tuple[np.ndarray, list[int]]:
    generator = np.random.default_rng(classes)
    labels = [number % classes for number in range(count)]
    images = generator.integers(0, 100, (count, *shape)) + np.array(labels).reshape(-1, *[1] * len(shape)) % 10 * 15
    return images.astype(np.uint8), labels


def _without_downloads() -> None:
    """Let torchvision's data sets hold a few made images instead of files."""
    from torchvision import datasets

    class Few:
        """A data set that holds what `images` makes; its arguments are those of torchvision."""

        def __init__(
            self,
            root: str,
            train: bool = True,
            transform: Any = None,
            target_transform: Any = None,
            download: bool = False,
        ):
            datasets.VisionDataset.__init__(self, root, transform=transform, target_transform=target_transform)
            self.train = train
            self.data, self.targets = self.images()

        def _check_integrity(self) -> bool:
            return True

    def cifar(kind: type, count: int) -> type:
        class FewColours(Few, kind):  # type: ignore[misc]
            def images(self) -> Any:
                self.classes = [str(label) for label in range(count)]
                self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
                return _data(4 * count if self.train else count, count, 32, 32, 3)

        return FewColours

    class FewDigits(Few, datasets.MNIST):  # type: ignore[misc]
        def images(self) -> Any:
            images, labels = _data(200 if self.train else 40, 10, 28, 28)
            return torch.from_numpy(images), torch.tensor(labels)

    datasets.CIFAR10, datasets.CIFAR100 = cifar(datasets.CIFAR10, 10), cifar(datasets.CIFAR100, 100)
    datasets.MNIST = FewDigits


class Kept(Buffer):
    """Ours, made as EXMEM_BUFFER says, and remembered."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **{**named, **json.loads(os.environ.get("EXMEM_BUFFER", "{}"))})
        BUFFERS.append(self)


@functools.cache
def prepared() -> type:
    """Make mammoth ready to be imported, with a buffer of ours in the place of its own; return that class."""
    source = peer_source("mammoth")
    assert source is not None
    prepare()
    if importlib.util.find_spec("open_clip") is None:
        sys.modules["open_clip"] = MagicMock()  # mammoth imports it for data sets and models that are not run here
    _without_downloads()
    sys.path.insert(0, str(source))
    torch.set_num_threads(1)
    importlib.import_module("utils.buffer").Buffer = Kept  # what a last line in utils/buffer.py does
    return Kept


def pytest_sessionfinish() -> None:
    """Say what was made."""
    if "EXMEM_MAMMOTH" in os.environ:
        made = [[len(buffer), buffer.num_seen_examples, buffer.buffer_size] for buffer in BUFFERS]
        Path(os.environ["EXMEM_MAMMOTH"]).write_text(json.dumps(made))


if "EXMEM_MAMMOTH" in os.environ:  # as a plugin: before mammoth's own conftest, which imports mammoth
    prepared()
