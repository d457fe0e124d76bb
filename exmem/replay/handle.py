"""A memory that any process opens for itself."""

import copy
import os
from typing import Any

import numpy as np

from exmem.errors import StaleSnapshotError, UnknownSlotError
from exmem.memory import ExemplarMemory
from exmem.store import Place
from exmem.tokens.tensors import TensorBatch

__all__ = ["MemoryHandle"]

_ATTEMPTS = 4  # at what a writer evicts while it is read


class MemoryHandle:
    """Reads a memory by its place; it is pickled and forked, and each process opens the memory when it first reads.

    `source` may be a memory (a writer too: it is read beside it), a folder, or a Zarr store. Its place is absolute, so
    that a process that starts elsewhere finds it.
    """

    def __init__(self, source: "ExemplarMemory | Place", *, threads: int = 1) -> None:
        self._pid, self._threads = os.getpid(), threads
        self._memory: ExemplarMemory | None = (
            copy.copy(source)  # a reader of the same place
            if isinstance(source, ExemplarMemory)
            else ExemplarMemory.open(source, threads=threads)
        )
        self.place: Place = self._memory.place

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memory": None}

    @property
    def memory(self) -> ExemplarMemory:
        """The memory as this process sees it."""
        if self._memory is None or self._pid != os.getpid():
            self._memory, self._pid = ExemplarMemory.open(self.place, threads=self._threads), os.getpid()
        return self._memory

    def read(self, slots: Any, *, generation: int = 0, follow: bool = False) -> TensorBatch:
        """Read exemplars as they are stored, of this generation of the memory or a later one.

        Where some were evicted meanwhile, others that are held stand in for them if it follows, by their number alone;
        else that is a StaleSnapshotError.
        """
        memory, wanted = self.memory, np.asarray(slots, np.int64)
        if memory.generation < generation:
            memory.refresh()
        for attempt in range(_ATTEMPTS):
            try:
                return TensorBatch.from_numpy(memory.read(wanted))
            except (UnknownSlotError, StaleSnapshotError) as error:
                if not follow or attempt == _ATTEMPTS - 1:
                    raise StaleSnapshotError(
                        f"{memory.location}: exemplars were evicted while a pass over them ran ({error}); begin a new "
                        "pass (`replay_loader(follow=True)` goes on by itself)"
                    ) from error
            memory.refresh()
            held = memory.slots
            if not len(held):
                raise StaleSnapshotError(f"{memory.location}: all exemplars were evicted while a pass over them ran")
            wanted = np.where(np.isin(wanted, held), wanted, held[wanted % len(held)])
        raise AssertionError("the last attempt returns or raises")
