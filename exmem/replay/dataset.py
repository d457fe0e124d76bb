"""A memory as a torch data set: worker processes open it by path and read whole batches."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from exmem.errors import SchemaError
from exmem.memory import ExemplarMemory
from exmem.replay.fills import FILLS, FillContext, class_means
from exmem.replay.samplers import SAMPLERS, UniformSampler
from exmem.tokens import TokenBatch
from exmem.tokens.tensors import TensorBatch

__all__ = ["ReplayDataset", "ReplayLoader", "replay_loader"]

_READ_AT_ONCE = 256  # exemplars, where all are read
_SET_HERE = frozenset({"dataset", "batch_size", "batch_sampler", "collate_fn", "shuffle", "drop_last"})


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
    grid : tuple of int, optional
        Rows and columns of patches, for fills that need places; a square when left out.
    threads : int
        Threads that decode, in each process.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fill: str = "drop",
        grid: tuple[int, int] | None = None,
        threads: int = 1,
    ) -> None:
        self.path = os.fspath(path)
        self.fill = fill
        self.grid = grid
        self._fill = FILLS.make(fill)
        self._means: tuple[int, Mapping[int, Tensor]] | None = None  # of a generation of the memory
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

    def batches(self) -> Iterator[TensorBatch]:
        """Read all exemplars as they are stored, some at a time.

        Yields
        ------
        TensorBatch
            The next ones; nothing is filled.
        """
        slots = self.memory.slots
        for start in range(0, len(slots), _READ_AT_ONCE):
            yield TensorBatch.from_numpy(self.memory.read(slots[start : start + _READ_AT_ONCE]))

    def fill_context(self) -> FillContext:
        """Return what the fill knows beside a batch; `class_mean` reads all exemplars once per snapshot for it.

        Returns
        -------
        FillContext
            Dense length, grid and, for `class_mean`, the mean colours of the classes.

        Raises
        ------
        SchemaError
            If the memory holds no `image`, or the grid does not fit it.
        """
        spec = self.memory.schema.modalities.get("image")
        if spec is None:
            raise SchemaError(f"a fill needs a modality 'image', got {sorted(self.memory.schema.modalities)}")
        means = self._class_means() if self.fill == "class_mean" else None
        return FillContext(length=spec.positions, grid=self.grid, class_means=means)

    def _class_means(self) -> Mapping[int, Tensor]:
        memory = self.memory
        if self._means is None or self._means[0] != memory.generation:
            self._means = memory.generation, class_means(self.batches())
        return self._means[1]

    def __getitem__(self, slot: int) -> TensorBatch:
        return self.__getitems__([slot])

    def __getitems__(self, slots: Sequence[int]) -> TensorBatch:
        batch = TensorBatch.from_numpy(self.read(slots))
        if "image" not in batch.tokens:
            return batch
        return self._fill(batch, self.fill_context())


class ReplayLoader(DataLoader[TensorBatch]):
    """A `DataLoader` of exemplars that can be saved and continued in the middle of a pass; made by `replay_loader`.

    Each iteration is the pass that `set_epoch` chose, from its start: also after one that was left in the middle. Only
    after `load_state_dict` it goes on where that says.
    """

    _yielded = 0  # batches of this iteration
    _start = 0  # where in the pass it started
    _next = 0  # where the next one starts

    def __iter__(self) -> "Iterator[TensorBatch]":  # type: ignore[override]  # the batches themselves
        self._start, self._next, self._yielded = self._next, 0, 0
        self._order.load_state_dict({"epoch": self._order.epoch, "done": self._start})
        for batch in super().__iter__():
            self._yielded += 1
            yield batch
        self._start = self._yielded = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass.

        Parameters
        ----------
        epoch : int
            Number of the pass.
        """
        self._order.set_epoch(epoch)
        self._start = self._next = self._yielded = 0

    def state_dict(self) -> dict[str, int]:
        """Return where in the pass the batches that were taken end, whatever workers have read ahead."""
        return {"epoch": self._order.epoch, "done": self._start + self._yielded * (self.batch_size or 1)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called; the next iteration yields the batch after it.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.
        """
        self._order.load_state_dict(state)
        self._start = self._next = int(state["done"])
        self._yielded = 0

    @property
    def _order(self) -> UniformSampler:
        order: UniformSampler = self.sampler  # type: ignore[assignment]  # replay_loader gives it such a sampler
        return order


def replay_loader(
    path: str | os.PathLike[str],
    *,
    batch: int,
    sampler: str = "uniform",
    length: int | None = None,
    fill: str = "drop",
    grid: tuple[int, int] | None = None,
    seed: int = 0,
    share: tuple[int, int] = (0, 1),
    **options: Any,
) -> ReplayLoader:
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
        Exemplars of one pass over all ranks; as many as the memory holds when left out.
    fill : str
        What becomes of dropped image tokens: a key of `FILLS`.
    grid : tuple of int, optional
        Rows and columns of patches, for fills that need places; a square when left out.
    seed : int
        Seed; `loader.set_epoch` chooses the pass.
    share : tuple of int
        (rank, world size) of processes that train together: they draw disjoint shares of the same pass.
    **options : object
        More options of `DataLoader`: num_workers (batches are the same whatever their number), pin_memory,
        multiprocessing_context, prefetch_factor, persistent_workers.

    Returns
    -------
    ReplayLoader
        Yields a `TensorBatch` at a time.

    Raises
    ------
    SchemaError
        If an option is one that the loader sets itself, or the memory holds nothing to draw.
    """
    taken = sorted(_SET_HERE.intersection(options))
    if taken:
        raise SchemaError(f"replay_loader sets {', '.join(taken)} itself; give batch=, sampler= and length= instead")
    dataset = ReplayDataset(path, fill=fill, grid=grid)
    memory = dataset.memory
    if "image" in memory.schema.modalities:
        dataset.fill_context()  # refuses a wrong grid here, and finds class means once for all workers
    order: UniformSampler = SAMPLERS[sampler](
        memory.slots, memory.labels, length=length, seed=seed, rank=share[0], num_replicas=share[1]
    )
    return ReplayLoader(
        dataset,
        batch_size=batch,
        sampler=order,
        collate_fn=_as_it_is,
        **{"persistent_workers": options.get("num_workers", 0) > 0, **options},
    )


def _as_it_is(batch: Any) -> Any:
    return batch  # `__getitems__` has already made one batch of the slots
