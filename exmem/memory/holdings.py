"""What a memory holds, for those who ask; nothing here changes what is stored."""

import json
import operator
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.errors import FormatError
from exmem.memory.plan import Policy
from exmem.memory.quota import Quota
from exmem.memory.reports import ClassSummary, summarise
from exmem.memory.sampling import draw
from exmem.store import Place, Store, format_bytes
from exmem.store.encode import checked_label
from exmem.tokens import Schema, TokenBatch

__all__ = ["EVICTIONS", "Holdings"]

EVICTIONS = ("by_class", "by_priority")


class Holdings:
    """The questions that a memory answers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        eviction = store.root.settings.get("eviction")
        if eviction not in EVICTIONS:
            raise FormatError(f"{store.location}: unknown eviction {eviction!r}; expected one of {list(EVICTIONS)}")
        self._eviction: Literal["by_class", "by_priority"] = eviction
        self._policy = Policy(store, eviction)
        self._check_settings()

    def _check_settings(self) -> None:
        """Raise FormatError if the root says what no memory wrote: it may be of any origin."""
        location = self._store.location
        if self._eviction == "by_priority" and self.quota != Quota():
            raise FormatError(f"{location}: eviction 'by_priority' knows no classes, got {self.quota}")
        try:
            for value in (self.attrs, self.class_names):
                json.dumps(value)
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FormatError(f"{location}: the attributes or the names of classes are broken ({error})") from error

    def __len__(self) -> int:
        return len(self._store.catalog)

    def __contains__(self, slot: object) -> bool:
        try:
            number = operator.index(slot)  # type: ignore[arg-type]
        except TypeError:
            return False
        in_range = not isinstance(slot, bool | np.bool_) and 0 <= number < 2**63
        return in_range and bool(self._store.catalog.holds(np.array([number]))[0])

    def __iter__(self) -> NoReturn:
        raise TypeError("a memory is not iterated over; read batches with memory.read(memory.slots[...]) or sample(n)")

    def __repr__(self) -> str:
        mode = "closed or for reading" if self._store.writer is None else "for writing"
        used, most = format_bytes(self.used_bytes), format_bytes(self.max_bytes)
        return f"<ExemplarMemory {self.location}: {len(self):,} exemplars, {used} of {most}, {mode}>"

    @property
    def location(self) -> str:
        """Where the memory lies."""
        return self._store.location

    @property
    def place(self) -> Place:
        """Where the memory lies, as `open` takes it."""
        return self._store.place

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
        return self._store.catalog.labels

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
        return self._eviction

    @property
    def quota(self) -> Quota:
        """How classes share the budget: by bytes or counts, and the weights that `weigh` set."""
        return self._policy.quota

    @property
    def max_bytes(self) -> int:
        """The budget."""
        return self._store.state.max_bytes

    @property
    def max_exemplars(self) -> int | None:
        """The most exemplars that are held, whatever their bytes; None where only bytes count."""
        return self._store.state.max_exemplars

    @property
    def used_bytes(self) -> int:
        """Bytes of all objects of the store and of all charges; of evicted exemplars until they are cleaned away."""
        return self._store.used_bytes + sum(self._store.state.charges.values())

    @property
    def free_bytes(self) -> int:
        """Bytes left for more exemplars, without the reserve; those of evicted ones that can be had back among them."""
        writer = self._store.books
        if writer is None:
            return max(0, self.max_bytes - self.used_bytes)
        back = self._policy.cleanable_bytes()
        return max(0, back - writer.shortage())

    @property
    def charges(self) -> dict[str, int]:
        """Bytes that a learner accounts for elsewhere, by name."""
        return dict(self._store.state.charges)

    @property
    def attrs(self) -> dict[str, Any]:
        """What the user noted with `annotate`."""
        return dict(json.loads(json.dumps(self._store.root.settings.get("attrs", {}))))

    @property
    def class_names(self) -> dict[int, str]:
        """Names of classes by label, as noted with `annotate`."""
        names = self._store.root.settings.get("class_names", {})
        return {int(label): str(name) for label, name in names.items()}

    @property
    def next_slot(self) -> int:
        """The number the next exemplar gets."""
        writer = self._store.books
        return self._store.state.next_slot if writer is None else writer.staged.next_slot

    @property
    def generation(self) -> int:
        """Number of commits, evictions and updates so far."""
        return self._store.state.generation

    @property
    def reservoir_state(self) -> dict[str, Any] | None:
        """The state of a stream, staged or committed; None where there is none."""
        writer = self._store.books
        staged = None if writer is None else writer.staged.reservoir
        state = self._store.state.reservoir if staged is None else staged
        return None if state is None else dict(state)

    def summary(self) -> dict[int, ClassSummary]:
        """Return what is held of each class, by label."""
        return summarise(self._store, self.quota)

    def sizes_by_part(self, slots: ArrayLike) -> dict[str, NDArray[np.int64]]:
        """Say what each part of some exemplars takes; together they are `sizes`.

        Parameters
        ----------
        slots : array-like, shape (B,), integer
            Slots that hold an exemplar.

        Returns
        -------
        dict of str to ndarray, shape (B,), int64
            Bytes by modality, then `extras` where the schema has extra fields, and `catalog`.

        Raises
        ------
        UnknownSlotError
            If a slot holds no exemplar.
        """
        return self._store.sizes_by_part(slots)

    def bytes_by_part(self) -> dict[str, int]:
        """Say what `used_bytes` is made of.

        Returns
        -------
        dict of str to int
            Bytes of the payloads of each modality with checksums and indexes (those of evicted exemplars until they are
            cleaned away, too), of the `catalog`, the `records` (kept positions, extras, small modalities), the
            `metadata`, `charges`, and `other` files; their sum is `used_bytes`.
        """
        return self._store.bytes_by_part() | {"charges": sum(self._store.state.charges.values())}

    def slots_of(self, label: int) -> NDArray[np.int64]:
        """Return the slots of a class, increasing, shape (N,), int64; none is no error.

        Parameters
        ----------
        label : int
            Class, as in `Exemplar.label`.

        Returns
        -------
        ndarray, shape (N,), int64
            Its slots.

        Raises
        ------
        InvalidExemplarError
            If the label is no integer.
        """
        slots: NDArray[np.int64] = self.slots[self.labels == checked_label(label, "slots_of")]
        return slots

    def read(self, slots: ArrayLike) -> TokenBatch:
        """Read exemplars into one padded batch, in the order asked; staged ones too.

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
            If a slot holds no exemplar.
        CorruptExemplarError
            If stored bytes are damaged; all other exemplars can still be read.
        StaleSnapshotError
            If an exemplar was evicted or updated since this reader's snapshot.
        """
        return self._store.read(slots)

    def sample(self, n: int, *, sampler: Literal["uniform", "balanced"] = "uniform", seed: int = 0) -> TokenBatch:
        """Draw exemplars and read them into one padded batch.

        Parameters
        ----------
        n : int
            How many, at most 2^24; beyond the number held, exemplars come again.
        sampler : {"uniform", "balanced"}
            Each exemplar equally often, or each class equally often.
        seed : int
            The same memory and seed give the same batch.

        Returns
        -------
        TokenBatch
            The exemplars in the order drawn, padded to the longest of them.

        Raises
        ------
        SchemaError
            If the sampler is unknown, a number out of range, or nothing is held.
        CorruptExemplarError
            If stored bytes are damaged.
        StaleSnapshotError
            If an exemplar was evicted or updated since this reader's snapshot.
        """
        return self.read(self.slots[draw(self.labels, n, sampler=sampler, seed=seed)])

    def refresh(self) -> None:
        """See what the writer has committed since this memory was opened (mode `"r"`)."""
        self._store.refresh()
        if self._store.writer is None:
            Holdings.__init__(self, self._store)
