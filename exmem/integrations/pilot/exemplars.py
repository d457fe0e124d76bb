"""What a learner of PyCIL or PILOT remembers: exemplars in the order in which they were chosen, as its data are."""

import itertools
import weakref
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.integrations.pilot.images import Resize, StoredImage, let_read, pixels, resize_of, square
from exmem.integrations.samples.fields import IMAGE
from exmem.integrations.samples.memory import AnyRecipe, FieldMemory
from exmem.store import Place, parse_bytes
from exmem.tokens.checks import flag

__all__ = ["LearnerExemplars"]

_AT_ONCE = 64  # images that are read and stored together
_UNKNOWN = 2**40  # exemplars, until there are classes
_LEAST_BYTES = 64  # no exemplar takes less on disk: its row, its index entry, its checksum
_NOTE = "paths"  # among the notes of a memory: whether the peer's data are paths


class LearnerExemplars:
    """A memory as arrays of data and targets: classes in order, each in the order in which its exemplars were chosen.

    Whoever assigns arrays to it is read at the next use: what was held before stays as it is stored, what is new is
    stored, the rest goes.
    """

    def __init__(
        self,
        count: int | None,
        *,
        is_fixed: bool,
        max_bytes: int | str | None = None,
        recipe: AnyRecipe = "jpeg",
        place: "Place | None" = None,
        size: int | None = None,
        ram_bytes: int | str = "256MB",
        durable: bool = False,
    ) -> None:
        if count is None and max_bytes is None:
            raise SchemaError("give memory_size, or max_bytes among the settings of exmem, or both")
        self.by_bytes = max_bytes is not None
        self._max_bytes = 0 if max_bytes is None else parse_bytes(max_bytes)
        self._grows = is_fixed and not self.by_bytes  # with the number of classes, of which nothing is known yet
        self._field = FieldMemory(
            place,
            max_bytes=max_bytes,
            max_exemplars=_UNKNOWN if self._grows else None if is_fixed else count,
            recipe=recipe,
            ram_bytes=ram_bytes,
            durable=flag(durable, "durable"),
        )
        self._resize: Resize | None = None if size is None else square(size)
        self._assigned: dict[str, NDArray[Any]] = {}
        self._is_checked = not self._field.exists  # whether all that is held is of classes that the learner knows
        self._forget()

    def _forget(self) -> None:
        self._last: tuple[NDArray[np.int64], weakref.ref[NDArray[Any]]] | None = None

    @property
    def field(self) -> FieldMemory:
        """The memory below."""
        return self._field

    def __len__(self) -> int:
        return len(self._field)

    def _ordered(self) -> NDArray[np.int64]:
        """Return all slots, by class, best first."""
        if not len(self):
            return np.zeros(0, np.int64)
        memory = self._field.memory
        return memory.slots[np.lexsort((memory.slots, -memory.priorities, memory.labels))]

    def slots_of(self, label: int) -> NDArray[np.int64]:
        """Return slots of a class, best first."""
        if not len(self):
            return np.zeros(0, np.int64)
        memory = self._field.memory
        rows = np.flatnonzero(memory.labels == label)
        return memory.slots[rows[np.argsort(-memory.priorities[rows], kind="stable")]]

    def _labels_at(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = np.searchsorted(self._field.slots, slots)  # slots of a memory increase
        labels: NDArray[np.int64] = self._field.labels[rows]
        return labels

    @property
    def data(self) -> NDArray[Any]:
        """All data as the peer has them, decoded once for as long as somebody holds the array."""
        if "data" in self._assigned:
            return self._assigned["data"]
        ordered = self._ordered()
        if self._last is not None and np.array_equal(self._last[0], ordered):
            held = self._last[1]()
            if held is not None:
                return held
        data = self._read(ordered)
        self._last = ordered, weakref.ref(data)
        return data

    @property
    def targets(self) -> NDArray[Any]:
        """Their classes."""
        return self._assigned["targets"] if "targets" in self._assigned else self._labels_at(self._ordered())

    def of_class(self, label: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return data and targets of a class."""
        slots = self.slots_of(label)
        return self._read(slots), np.full(len(slots), label)

    def _read(self, slots: NDArray[np.int64]) -> NDArray[Any]:
        if not len(slots):
            return np.zeros(0)
        if self._holds_paths():
            let_read()
            self._field.commit()  # worker processes open what is committed
            self._field.decoded.prepare(slots)
            data = np.empty(len(slots), object)
            data[:] = [StoredImage(self._field.decoded, slot) for slot in slots.tolist()]
            return data
        images = np.empty((len(slots), *self._field.fields[IMAGE].shape), np.uint8)
        for start in range(0, len(slots), _AT_ONCE):
            chunk = slots[start : start + _AT_ONCE]
            images[start : start + len(chunk)] = self._field.decoded.read_once(chunk)[IMAGE].numpy()
        return images

    def see(self, data_manager: Any) -> None:
        """Learn at which size images of paths are kept, where nobody said it."""
        if self._resize is None and data_manager.use_path:
            self._resize = resize_of(data_manager._test_trsf)

    def begin(self, known: int) -> None:
        """Drop what a phase left that ended before the learner was saved; SchemaError if it has learnt nothing yet."""
        if self._is_checked:
            return
        if known == 0 and len(self):
            raise SchemaError(
                f"{self._field.memory.location} holds {len(self):,} exemplars of "
                f"{len(np.unique(self._field.labels)):,} classes, but the learner knows none; to go on, load its "
                "network and set _cur_task, _known_classes and _total_classes first; to start anew, give another place"
            )
        self._is_checked = True
        self.drop_from(known)

    def drop_from(self, label: int) -> None:
        """Evict this class and those after it."""
        self._evict(self._field.slots[self._field.labels >= label])

    def keep_first(self, count: int, classes: int) -> None:
        """Keep so many of each of the first classes, and nothing of those after them."""
        ordered = self._ordered()
        labels = self._labels_at(ordered)
        self._evict(ordered[(_places(labels) >= count) | (labels >= classes)])

    def _evict(self, slots: NDArray[np.int64]) -> None:
        if len(slots):
            self._field.evict(slots)

    def allow(self, count: int) -> None:
        """Let so many be held; where nobody said how many bytes, the budget follows."""
        self._field.resize(max_exemplars=count)

    def most_of(self, classes: int) -> int:
        """Return more than any of so many classes can hold in its share of the bytes."""
        return self._max_bytes // (_LEAST_BYTES * classes)

    def offer(self, label: int, data: NDArray[Any], order: Iterator[int]) -> None:
        """Store data of a class in this order, until one is turned away."""
        count = 0
        while rows := list(itertools.islice(order, _AT_ONCE)):
            if not self._add(data[rows], np.full(len(rows), label), -np.arange(count, count + len(rows))):
                return
            count += len(rows)

    def _add(self, data: NDArray[Any], labels: NDArray[np.int64], priorities: NDArray[Any]) -> bool:
        """Store some; return whether all are held."""
        images, is_paths = pixels(data, self._resize), data.dtype != np.uint8
        if self._field.exists and self._holds_paths() != is_paths:
            kind = "paths" if is_paths else "arrays"
            raise SchemaError(f"{self._field.memory.location} holds no images of {kind}; give another place")
        report = self._field.add({IMAGE: torch.from_numpy(np.ascontiguousarray(images))}, labels, priorities)
        if is_paths and not self._holds_paths():
            self._field.memory.annotate(attrs={**self._field.memory.attrs, _NOTE: True})
        return bool((report.slots >= 0).all())

    def _holds_paths(self) -> bool:
        return bool(self._field.memory.attrs.get(_NOTE, False))

    def assign(self, name: str, values: Any) -> None:
        """Take data or targets that the peer's own code made; they count from the next use on."""
        self._assigned[name] = np.asarray(values)

    def settle(self) -> bool:
        """Hold what was assigned; return whether anything was."""
        if not self._assigned:
            return False
        data, targets = self.data, self.targets
        if len(data) != len(targets):
            raise InvalidExemplarError(
                f"_data_memory has {len(data):,} rows, _targets_memory {len(targets):,}; assign both"
            )
        labels = targets.astype(np.int64)
        self._assigned = {}
        kept = self._slots_that_are(data, labels)
        self._evict(np.setdiff1d(self._field.slots, kept))
        if self._grows:
            self.allow(len(data))
        priorities = -_places(labels)
        self._rank(kept[kept >= 0], priorities[kept >= 0])
        new = np.flatnonzero(kept < 0)
        for start in range(0, len(new), _AT_ONCE):
            rows = new[start : start + _AT_ONCE]
            self._add(data[rows], labels[rows], priorities[rows])
        self._field.commit()
        return True

    def _slots_that_are(self, data: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slot of each row that is held already, -1 of the others; no slot twice."""
        ordered = self._ordered()
        there: dict[Any, list[int]] = defaultdict(list)
        held = self._read(ordered)
        for row, label, slot in zip(held, self._labels_at(ordered).tolist(), ordered.tolist(), strict=True):
            there[_name(row), label].append(slot)
        named = [there.get((_name(row), label)) for row, label in zip(data, labels.tolist(), strict=True)]
        return np.array([slots.pop(0) if slots else -1 for slots in named], np.int64)

    def _rank(self, slots: NDArray[np.int64], priorities: NDArray[np.int64]) -> None:
        if not len(slots):
            return
        memory = self._field.memory
        now = memory.priorities[np.searchsorted(memory.slots, slots)]
        if (now != priorities).any():
            memory.update(slots[now != priorities], priority=priorities[now != priorities].astype(np.float64))

    def __getstate__(self) -> dict[str, Any]:
        return {name: held for name, held in self.__dict__.items() if name != "_last"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _name(row: Any) -> Any:
    return row.slot if isinstance(row, StoredImage) else row.tobytes() if isinstance(row, np.ndarray) else None


def _places(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which of its class each row is, from 0."""
    places = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        places[rows] = np.arange(len(rows))
    return places
