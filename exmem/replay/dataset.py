"""A memory as a torch data set: worker processes open it by path and read whole batches."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from exmem.memory import ExemplarMemory
from exmem.replay.fills import get_fill
from exmem.replay.samplers import UniformSampler, get_sampler
from exmem.tensors import TensorBatch
from exmem.tokens import TokenBatch

__all__ = ["ReplayDataset", "replay_loader"]


class ReplayDataset(Dataset[TensorBatch]):
    """Exemplars by slot, in whole batches.

    Each process opens the memory for itself when it first reads, and the page cache is shared; so an instance can be
    pickled and forked. It shows what was committed when it first read.

    Parameters
    ----------
    path : path
        Folder of the memory.
    fill : str
        What becomes of dropped image tokens: a key of `FILLS`.
    threads : int
        Threads that decode, in each process.
    """

    def __init__(self, path: str | os.PathLike[str], *, fill: str = "drop", threads: int = 1) -> None:
        self.path = os.fspath(path)
        self.fill = fill
        self._fill = get_fill(fill)
        self._threads = threads
        self._memory: ExemplarMemory | None = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memory": None, "_pid": -1}

    @property
    def memory(self) -> ExemplarMemory:
        """The memory as this process sees it."""
        if self._memory is None or self._pid != os.getpid():
            self._memory, self._pid = ExemplarMemory.open(self.path, threads=self._threads), os.getpid()
        return self._memory

    def __len__(self) -> int:
        return len(self.memory)

    def read(self, slots: Sequence[int]) -> TokenBatch:
        """Read exemplars as they are stored.

        Parameters
        ----------
        slots : sequence of int
            Slots.

        Returns
        -------
        TokenBatch
            One row per slot.
        """
        return self.memory.read(np.asarray(slots, np.int64))

    def __getitem__(self, slot: int) -> TensorBatch:
        return self.__getitems__([slot])

    def __getitems__(self, slots: Sequence[int]) -> TensorBatch:
        batch = TensorBatch.from_numpy(self.read(slots))
        specs = self.memory.schema.modalities
        filled = {
            name: self._fill(tokens, specs[name].positions) if name != "text" else tokens
            for name, tokens in batch.tokens.items()
        }
        return TensorBatch(filled, batch.labels, batch.extras)


def replay_loader(
    path: str | os.PathLike[str],
    *,
    batch: int,
    sampler: str = "uniform",
    length: int | None = None,
    fill: str = "drop",
    num_workers: int = 0,
    seed: int = 0,
) -> "DataLoader[TensorBatch]":
    """Load batches of exemplars at random.

    Parameters
    ----------
    path : path
        Folder of the memory.
    batch : int
        Exemplars of a batch.
    sampler : str
        `uniform` or `balanced` over the classes.
    length : int, optional
        Exemplars of one pass; as many as the memory holds when left out.
    fill : str
        What becomes of dropped image tokens: a key of `FILLS`.
    num_workers : int
        Worker processes; batches are the same whatever their number.
    seed : int
        Seed; `loader.sampler.set_epoch` chooses the pass.

    Returns
    -------
    DataLoader
        Yields a `TensorBatch` at a time.
    """
    dataset = ReplayDataset(path, fill=fill)
    memory = dataset.memory
    order: UniformSampler = get_sampler(sampler)(memory.slots, memory.labels, length=length, seed=seed)
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=order,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        persistent_workers=num_workers > 0,
    )


def _as_it_is(batch: Any) -> Any:
    return batch  # `__getitems__` has already made one batch of the slots
