"""What a memory holds, for those who ask."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.budget import Quota
from exmem.planning import ClassSummary, summarise
from exmem.store import Store
from exmem.tokens import Schema, TokenBatch

__all__ = ["Holdings"]


class Holdings:
    """The questions that a memory answers; none changes anything that is stored.

    Parameters
    ----------
    store : Store
        What is held.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store.catalog)

    @property
    def location(self) -> str:
        """Where the memory lies."""
        return self._store.location

    @property
    def schema(self) -> Schema:
        """What every exemplar holds."""
        return self._store.layout.schema

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots that hold an exemplar, increasing, shape (N,), int64; the staged ones last."""
        return self._store.catalog.slots

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each slot of `slots`, shape (N,), int64."""
        return self._store.catalog.column("label")

    @property
    def priorities(self) -> NDArray[np.float64]:
        """Priority of each slot of `slots`, shape (N,), float64."""
        return self._store.catalog.priorities

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each slot of `slots`, shape (N,), int64: payloads, checksums, index entries, rows uncompressed."""
        return self._store.sizes()

    @property
    def eviction(self) -> str:
        """Who goes first when bytes are needed: `by_class` or `by_priority`."""
        return self._store.root.eviction

    @property
    def quota(self) -> Quota:
        """How classes share the budget: by bytes or counts, and the weights that `weigh` set."""
        return self._store.root.quota

    @property
    def max_bytes(self) -> int:
        """The budget."""
        return self._store.root.max_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of all objects of the store, of what is staged, and of all charges."""
        return self._store.measure().objects_bytes + sum(self._store.root.charges.values())

    @property
    def free_bytes(self) -> int:
        """Bytes left for more exemplars, the room that is held back for rewriting a shard not among them."""
        return max(0, self._store.root.capacity - sum(self._store.measure()))

    @property
    def charges(self) -> dict[str, int]:
        """Bytes that a learner accounts for elsewhere, by name."""
        return dict(self._store.root.charges)

    @property
    def next_slot(self) -> int:
        """The number the next exemplar gets, or a higher one."""
        return self._store.next_slot

    @property
    def generation(self) -> int:
        """Number of commits and evictions so far."""
        return self._store.catalog.generation

    def summary(self) -> dict[int, ClassSummary]:
        """Return what is held of each class, by label."""
        return summarise(self._store)

    def read(self, slots: ArrayLike) -> TokenBatch:
        """Read exemplars into one padded batch, in the order asked; staged ones have to be committed first.

        Parameters
        ----------
        slots : array-like, shape (B,), integer
            Slots; one may occur several times.

        Returns
        -------
        TokenBatch
            The exemplars, padded to the longest of the batch.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar or is not committed.
        CorruptExemplarError
            If stored bytes are damaged; all other exemplars can still be read.
        StaleSnapshotError
            If the writer has reclaimed an exemplar since this reader's snapshot.
        """
        return self._store.reader.read(self._store.catalog, slots)

    def refresh(self) -> None:
        """See what the writer has committed since this memory was opened (mode `"r"`)."""
        self._store.refresh()
