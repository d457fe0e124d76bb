"""TorchRL's own storages and ours: a replay buffer of images, labels and logits, at the size of its ring."""

import functools
import json
from pathlib import Path

import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, TensorDictReplayBuffer

from bench.buffers.sides import BATCH, Samples, Side
from exmem.integrations.torchrl import ExmemStorage

__all__ = ["sides"]

_OURS = {
    "exmem, as it is": functools.partial(ExmemStorage, image=None),
    "exmem, jpeg": functools.partial(ExmemStorage, image="pixels", recipe="jpeg"),
}
_THEIRS = {"LazyMemmapStorage": LazyMemmapStorage, "LazyTensorStorage": LazyTensorStorage}


def _entries(given: Samples) -> TensorDict:
    fields = {"pixels": given.images, "label": given.labels, "logits": given.logits}
    return TensorDict(fields, batch_size=[len(given.labels)])


def _fill(name: str, given: Samples) -> TensorDictReplayBuffer:
    storage = {**_THEIRS, **_OURS}[name](len(given.labels))
    buffer = TensorDictReplayBuffer(storage=storage, batch_size=BATCH)
    entries = _entries(given)
    for start in range(0, len(entries), 100):
        buffer.extend(entries[start : start + 100])
    return buffer


def _draw(buffer: TensorDictReplayBuffer, count: int) -> torch.Tensor:
    pixels: torch.Tensor = buffer.sample(count)["pixels"]
    return pixels


def _save(buffer: TensorDictReplayBuffer, folder: Path) -> None:
    buffer.dumps(folder)


def _load(name: str, folder: Path) -> TensorDictReplayBuffer:
    size = json.loads((folder / "writer" / "metadata.json").read_text())["write_count"]  # it was filled once
    buffer = TensorDictReplayBuffer(storage={**_THEIRS, **_OURS}[name](size), batch_size=BATCH)
    buffer.loads(folder)
    return buffer


def _kept(buffer: TensorDictReplayBuffer) -> int:
    storage = buffer.storage
    if isinstance(storage, ExmemStorage):
        return storage.memory.used_bytes
    return sum(values.nbytes for values in storage.get(slice(None)).values(include_nested=True, leaves_only=True))


def sides() -> list[Side]:
    """TorchRL's storage on disk and in RAM, and ours with the same tensors bit for bit, and with JPEG."""
    return [
        Side(
            name,
            functools.partial(_fill, name),
            _draw,
            _save,
            functools.partial(_load, name),
            _kept,
        )
        for name in [*_THEIRS, *_OURS]
    ]
