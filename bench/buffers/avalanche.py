"""Avalanche's class-balanced buffer and ours, read through a DataLoader as ReplayDataLoader reads it.

`python -m bench.buffers.avalanche` trains Naive with ReplayPlugin on five tasks, and prints iterations a second.
"""

import pickle
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from bench.buffers.sides import BATCH, Samples, Side, samples
from tests.integrations.peers.environment import prepare

prepare()
warnings.simplefilter("ignore")  # of the peer: deprecations of its own methods

from avalanche.benchmarks import nc_benchmark  # noqa: E402
from avalanche.benchmarks.utils import _make_taskaware_classification_dataset  # noqa: E402
from avalanche.training.plugins import ReplayPlugin, SupervisedPlugin  # noqa: E402
from avalanche.training.storage_policy import ClassBalancedBuffer  # noqa: E402
from avalanche.training.supervised import Naive  # noqa: E402

from exmem.integrations.avalanche import MemoryBuffer  # noqa: E402

__all__ = ["five_tasks", "sides"]


class Drawn:
    """A filled policy, and the endless batches of its buffer."""

    def __init__(self, policy: Any, place: Path | None = None) -> None:
        self.policy, self.place, self._batches = policy, place, iter(())

    def draw(self, batch: int) -> torch.Tensor:
        try:
            return next(self._batches)[0]
        except StopIteration:
            # A replay loader concatenates the experience and the buffer, and so asks for samples one by one.
            loader = DataLoader(ConcatDataset([self.policy.buffer]), batch_size=batch, shuffle=True, drop_last=True)
            self._batches = iter(loader)
            return next(self._batches)[0]


def data(given: Samples) -> Any:
    return _make_taskaware_classification_dataset(TensorDataset(given.images, given.labels), targets=given.labels)


def filled(policy: Any, given: Samples, place: Path | None = None) -> Drawn:
    policy.update_from_dataset(data(given))
    assert len(policy.buffer) == len(given.labels)
    return Drawn(policy, place)


def pickled(drawn: Drawn, folder: Path) -> None:
    (folder / "buffer.pickle").write_bytes(pickle.dumps(drawn.policy))


def unpickled(folder: Path) -> Any:
    return pickle.loads((folder / "buffer.pickle").read_bytes())


def held(drawn: Drawn) -> int:
    """Bytes of the tensors that the exemplars lie in."""
    flat = drawn.policy.buffer._flat_data
    while not isinstance(flat, TensorDataset):
        flat = flat._datasets[0]
    return sum(tensor.nbytes for tensor in flat.tensors)


def ours(recipe: str | None, name: str) -> Side:
    return Side(
        name,
        fill=lambda given: filled(MemoryBuffer(len(given.labels), recipe=recipe), given),
        draw=lambda drawn, batch: drawn.draw(batch),
        save=pickled,
        load=unpickled,
        kept=lambda drawn: drawn.policy.memory.used_bytes,
    )


def sides() -> list[Side]:
    """Theirs, ours with the same exemplars bit for bit, ours by JPEG."""
    theirs = Side(
        "Avalanche ClassBalancedBuffer",
        fill=lambda given: filled(ClassBalancedBuffer(len(given.labels)), given),
        draw=lambda drawn, batch: drawn.draw(batch),
        save=pickled,
        load=unpickled,
        kept=held,
    )
    return [theirs, ours("raw", "exmem, raw"), ours(None, "exmem, lossless"), ours("jpeg", "exmem, jpeg")]


def five_tasks(make: Callable[[], Any], *, per_task: int = 2000, size: int = 32) -> list[float]:
    """Iterations a second of each of five tasks, without storing, of a linear model: reading is most of a step."""
    given = samples(5 * per_task, size)
    source = TensorDataset(given.images, given.labels)
    source.targets = given.labels
    options = {"train_transform": scaled, "eval_transform": scaled, "seed": 0}
    benchmark = nc_benchmark(source, source, 5, task_labels=False, **options)
    policy = make()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * size * size, 10))
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.01),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=1,
        evaluator=None,
        plugins=[ReplayPlugin(policy.max_size, storage_policy=policy), clock := Clock()],
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    return [per_task / BATCH / seconds for seconds in clock.epochs]


class Clock(SupervisedPlugin):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.start = time.perf_counter()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.epochs.append(time.perf_counter() - self.start)


def scaled(image: torch.Tensor) -> torch.Tensor:
    return image.float() / 255


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads that wait for each other measure what else the machine does
    with tempfile.TemporaryDirectory() as temporary:
        number = iter(range(10**6))
        makers: dict[str, Callable[[], Any]] = {
            "Avalanche": lambda: ClassBalancedBuffer(2000),
            "exmem, raw": lambda: MemoryBuffer(2000, recipe="raw", place=Path(temporary) / str(next(number))),
            "exmem, jpeg": lambda: MemoryBuffer(2000, recipe="jpeg", place=Path(temporary) / str(next(number))),
        }
        rounds: dict[str, list[list[float]]] = {name: [] for name in makers}
        for _ in range(3):
            for name, maker in makers.items():
                rounds[name].append(five_tasks(maker))
        print("| buffer of 2,000 | " + " | ".join(f"task {task}" for task in range(1, 6)) + " |")
        print("|" + " --- |" * 6)
        for name, measured in rounds.items():
            rates = [statistics.median(rate) for rate in zip(*measured, strict=True)]
            print(f"| {name} | " + " | ".join(f"{rate:.0f} it/s" for rate in rates) + " |")
