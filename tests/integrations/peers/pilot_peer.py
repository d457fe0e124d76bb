"""PyCIL and PILOT from their sources, with networks of a few weights and images that look like CIFAR's."""

import contextlib
import importlib
import json
import pickle
import random
import sys
import types
import warnings
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tests.integrations.peers.environment import peer_source, prepare

__all__ = ["HOW", "Idata", "Prepared", "args_of", "data_manager", "idata", "learner_of", "loaded", "run", "seeded"]

HOW = (
    "needs a folder in the environment variable EXMEM_PEERS with clones of https://github.com/G-U-N/PyCIL as PyCIL and "
    "https://github.com/LAMDA-CL/LAMDA-PILOT as LAMDA-PILOT, and timm, scipy, tqdm and torchvision"
)
_TOPS = ("backbone", "convs", "models", "utils")


class Idata:
    """Data as both peers' DataManager takes them."""

    def __init__(self, train: tuple[Any, Any], test: tuple[Any, Any], *, transforms: Any, use_path: bool) -> None:
        (self.train_data, self.train_targets), (self.test_data, self.test_targets) = train, test
        self.train_trsf, self.test_trsf, self.common_trsf = transforms
        self.use_path, self.class_order = use_path, sorted(set(self.train_targets.tolist()))

    def download_data(self) -> None:
        pass


def idata(counts: list[int], *, size: int = 8, seed: int = 0) -> Idata:
    """Noisy images (size, size, 3) around one image of each class; so many of each for training."""
    from torchvision import transforms

    rng = np.random.default_rng(seed)
    centres = rng.integers(40, 215, (len(counts), size, size, 3))

    def drawn(numbers: list[int]) -> tuple[Any, Any]:
        targets = np.repeat(np.arange(len(numbers)), numbers)
        noise = rng.integers(-40, 41, (len(targets), size, size, 3))
        return (centres[targets] + noise).astype(np.uint8), targets

    trsf = [transforms.RandomHorizontalFlip()], [], [transforms.ToTensor()]
    return Idata(drawn(counts), drawn([6] * len(counts)), transforms=trsf, use_path=False)


class Prepared(Dataset[Any]):
    """A data set that a spawned process can unpickle, where torchvision needs preparing."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]

    def __reduce__(self) -> Any:
        return _prepared, (ForkingPickler.dumps(self.rows).tobytes(),)


def _prepared(rows: bytes) -> Prepared:
    prepare()
    return Prepared(pickle.loads(rows))


class _Tiny(nn.Module):
    out_dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(images)).mean((2, 3))


class _TinyConvnet(_Tiny):
    def forward(self, images: torch.Tensor) -> dict[str, Any]:
        features = super().forward(images)
        return {"features": features, "fmaps": [features[:, :, None, None]] * 3}


@contextlib.contextmanager
def loaded(name: str) -> Iterator[types.SimpleNamespace]:
    """Import a peer, and let all trace of it go at the end: both have the same module names."""
    source = peer_source(name)
    if source is None:
        pytest.skip(HOW)
    prepare()
    for package in ("timm", "scipy", "tqdm", "torchvision"):
        pytest.importorskip(package, reason=HOW)
    before = {key: module for key, module in sys.modules.items() if key.split(".")[0] in _TOPS}
    path, threads = list(sys.path), torch.get_num_threads()
    torch.set_num_threads(1)  # so small networks wait for their threads otherwise
    for key in before:
        del sys.modules[key]
    sys.path.insert(0, str(source))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the peer's imports
            _old_timm()
            inc_net = importlib.import_module("utils.inc_net")
            inc_net.get_convnet = lambda args, pretrained=False: _TinyConvnet()
            inc_net.get_backbone = lambda args, pretrained=False: _Tiny()
            base = importlib.import_module("models.base")
            base.DataLoader = _without_workers  # four of them for each class take most of a test's time
            yield types.SimpleNamespace(
                name=name,
                source=source,
                data=importlib.import_module("utils.data_manager"),
                base=base,
                method=lambda method: importlib.import_module(f"models.{method}"),
            )
    finally:
        torch.set_num_threads(threads)
        sys.path[:] = path
        for key in [key for key in sys.modules if key.split(".")[0] in _TOPS]:
            del sys.modules[key]
        sys.modules.update(before)


def _without_workers(dataset: Any, **options: Any) -> Any:
    return DataLoader(dataset, **{**options, "num_workers": 0})


def _old_timm() -> None:
    """PILOT imports what newer versions of timm have elsewhere."""
    layers = importlib.import_module("timm.layers")
    for part in ("weight_init", "helpers", "drop"):
        with contextlib.suppress(ImportError):
            sys.modules.setdefault(f"timm.models.layers.{part}", importlib.import_module(f"{layers.__name__}.{part}"))


_METHOD: dict[str, Any] = {
    **dict.fromkeys(("init_epoch", "init_epochs", "epochs", "boosting_epochs", "ft_epochs", "tuned_epoch"), 2),
    **dict.fromkeys(("compression_epochs", "expansion_epochs", "fusion_epochs"), 1),
    **dict.fromkeys(("lr", "init_lr", "lrate"), 0.05),
    "batch_size": 16,
    "num_workers": 0,
}


def args_of(classes: int, per_phase: int, **changes: Any) -> dict[str, Any]:
    """A configuration, with what all methods have in common."""
    named = {"dataset": "fake", "convnet_type": "tiny", "backbone_type": "tiny", "model_name": "any", "seed": 0}
    phases = {"init_cls": per_phase, "increment": per_phase, "nb_classes": classes, "device": [torch.device("cpu")]}
    memory = {"memory_size": 12, "memory_per_class": 3, "fixed_memory": False}
    return {**named, **phases, **memory, **_METHOD, **changes}


def seeded(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the peers draw from it
    torch.manual_seed(seed)


def data_manager(peer: Any, data: Idata, args: dict[str, Any]) -> Any:
    """The peer's own, of these data."""
    peer.data._get_idata = lambda *_: data
    last = args if peer.name == "LAMDA-PILOT" else 1
    return peer.data.DataManager("fake", False, 0, args["init_cls"], args["increment"], last)


def learner_of(peer: Any, method: str, args: dict[str, Any], give: Any = None) -> Any:
    """A method's learner; `give` makes another class of its class."""
    module = peer.method(method)
    for name, value in {**_METHOD, "num_workers": args["num_workers"]}.items():
        if hasattr(module, name):
            setattr(module, name, value)
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    kind = next(kind for kind in kinds if issubclass(kind, peer.base.BaseLearner))
    described = json.loads((peer.source / "exps" / f"{method.split('_')[0]}.json").read_text(encoding="utf-8"))
    for name, value in described.items():
        args.setdefault(name, value)
    learner = (kind if give is None else give(kind))(args)
    learner.topk = min(5, args["init_cls"])
    return learner


def run(learner: Any, manager: Any, phases: int, *, seed: int = 0) -> list[Any]:
    """Learn some phases as the peer's trainer does; the accuracies after each."""
    accuracies = []
    for _ in range(phases):
        seeded(seed + learner._cur_task + 1)
        learner.incremental_train(manager)
        accuracies.append(learner.eval_task())
        learner.after_task()
    return accuracies
