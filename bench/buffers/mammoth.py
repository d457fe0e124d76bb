"""mammoth's buffer and ours: `EXMEM_PEERS=FOLDER python -m bench.buffers mammoth`.

Draws are of mammoth's not augmented kind (`transform=None`); checkpoints are what its safe mode writes: `serialize()`
by `torch.save`, and back as its `load_buffer` does. `python -m bench.buffers.mammoth` times what an ER does with its
buffer in a step, a draw and an add, beside a step of its ResNet-18.
"""

import functools
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.buffers.sides import BATCH, Samples, Side, samples
from exmem.integrations.mammoth import Buffer
from tests.integrations.peers.environment import peer_source, prepare

__all__ = ["sides", "steps", "training_step"]


@functools.cache
def _theirs() -> type:
    source = peer_source("mammoth")
    if source is None:
        raise SystemExit("give the folder with the clone of https://github.com/aimagelab/mammoth in EXMEM_PEERS")
    prepare()
    sys.path.insert(0, str(source))
    return importlib.import_module("utils.buffer").Buffer


def _fill(make: Callable[[int], Any], given: Samples) -> Any:
    buffer = make(len(given.labels))
    for start in range(0, len(given.labels), BATCH):
        part = slice(start, start + BATCH)
        buffer.add_data(given.images[part].float().div(255), labels=given.labels[part], logits=given.logits[part])
    return buffer


def _draw(buffer: Any, count: int) -> torch.Tensor:
    return buffer.get_data(count)[0]


def _save(buffer: Any, folder: Path) -> None:
    torch.save(buffer.serialize(), folder / "buffer.pt")


def _load(make: Callable[[int], Any], folder: Path) -> Any:
    state = torch.load(folder / "buffer.pt", weights_only=True)
    buffer = make(len(state["examples"]))
    for name, value in state.items():
        setattr(buffer, name, value)
    buffer.attributes = list(state)
    buffer.num_seen_examples = len(state["examples"])
    return buffer


def _kept(buffer: Any) -> int:
    if isinstance(buffer, Buffer):
        return buffer.memory.used_bytes
    return sum(getattr(buffer, name).nbytes for name in buffer.used_attributes)


def sides() -> list[Side]:
    """Theirs, and ours bit for bit and by JPEG."""
    makes = {
        "mammoth": lambda count: _theirs()(count),
        "exmem raw": lambda count: Buffer(count, recipe="raw"),
        "exmem jpeg": lambda count: Buffer(count, recipe="jpeg"),
    }
    return [
        Side(name, functools.partial(_fill, make), _draw, _save, functools.partial(_load, make), _kept)
        for name, make in makes.items()
    ]


def steps(count: int = 500, size: int = 32, rounds: int = 300) -> dict[str, tuple[float, float]]:
    """Milliseconds of a draw and an add of 32, of each side when it is full: the median and the mean, in turn."""
    given = samples(count, size)
    buffers = {side.name: side.fill(given) for side in sides()}
    arrivals = given.images[:BATCH].float().div(255)
    taken: dict[str, list[float]] = {name: [] for name in buffers}
    for _ in range(rounds):
        for name, buffer in buffers.items():
            start = time.perf_counter()
            buffer.get_data(BATCH)
            buffer.add_data(arrivals, labels=given.labels[:BATCH], logits=given.logits[:BATCH])
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: (float(np.median(times)), float(np.mean(times))) for name, times in taken.items()}


def training_step(rounds: int = 5) -> float:
    """Milliseconds of a step of ER on mammoth's ResNet-18: 32 new images of 32 pixels, and 32 drawn."""
    _theirs()
    model = importlib.import_module("backbone.ResNetBlock").resnet18(10)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    images, labels = torch.rand(2 * BATCH, 3, 32, 32), torch.arange(2 * BATCH) % 10
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


if __name__ == "__main__":
    step = training_step()
    print(f"a training step: {step:.0f} ms")
    for side, (median, mean) in steps().items():
        share = 100 * mean / step
        print(f"{side}: draw and add: median {median:.2f} ms, mean {mean:.2f} ms, {share:.1f} % of the step")
