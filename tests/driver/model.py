"""What a memory must hold: dictionaries, and an eviction order that is worked out anew each time."""

import copy
import dataclasses
import heapq
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.driver.schemas import Case, Known, case_named, known


@dataclasses.dataclass(frozen=True)
class Entry:
    """An exemplar: which one of the pool, and what is its own; `extras` where they were changed, `updates` so far."""

    index: int
    label: int
    priority: float
    extras: dict[str, Any] | None = None
    updates: int = 0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a memory says of itself beside its exemplars."""

    max_bytes: int
    charges: dict[str, int] = dataclasses.field(default_factory=dict)
    weights: dict[int, float] = dataclasses.field(default_factory=dict)
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)
    class_names: dict[int, str] = dataclasses.field(default_factory=dict)
    max_exemplars: int | None = None

    @property
    def limit(self) -> int:
        """Bytes that the files may take."""
        return self.max_bytes - sum(self.charges.values())

    def described_bytes(self) -> int:
        """About what the settings themselves take, as text."""
        return len(str((self.charges, self.weights, self.attrs, self.class_names)))


@dataclasses.dataclass
class Model:
    """A memory as dictionaries.

    `held` is what the writer holds, staged ones too; `committed` what a reader sees, and what a discard goes back to.
    """

    case_name: str
    settings: Settings
    held: dict[int, Entry] = dataclasses.field(default_factory=dict)
    committed: dict[int, Entry] = dataclasses.field(default_factory=dict)
    highest: int = -1  # the highest slot that was ever committed

    @property
    def case(self) -> Case:
        return case_named(self.case_name)

    @property
    def known(self) -> Known:
        return known(self.case_name)

    def size(self, entry: Entry) -> int:
        return self.known.sizes[entry.index]

    def held_bytes(self) -> int:
        return sum(map(self.size, self.held.values()))

    def copy(self) -> "Model":
        found = copy.copy(self)
        found.held, found.committed = dict(self.held), dict(self.committed)
        return found

    def drop(self, slots: Iterable[int]) -> None:
        """Evict: at once, for readers too."""
        for slot in slots:
            self.held.pop(slot, None)
            self.committed.pop(slot, None)

    def commit(self) -> None:
        self.committed = dict(self.held)
        self.highest = max([self.highest, *self.held])

    def discard(self) -> None:
        self.held = dict(self.committed)

    def order(self, offered: Collection[Entry] = (), weights: dict[int, float] | None = None) -> Iterator[int]:
        """Name who goes, first the first: slots, and -1 - i for the offered exemplar i."""
        weights = self.settings.weights if weights is None else weights
        entries = [(slot, entry) for slot, entry in sorted(self.held.items())]
        entries += [(-1 - number, entry) for number, entry in enumerate(offered)]
        by_class = self.case.eviction == "by_class"
        classes: dict[int, list[tuple[float, int]]] = {}  # (priority, age): the best first, of equals the oldest
        for age, (_, entry) in enumerate(entries):
            classes.setdefault(entry.label if by_class else 0, []).append((-entry.priority, age))
        for members in classes.values():
            members.sort()

        def load(label: int) -> float:
            members = classes[label]
            amount = len(members) if self.case.quota == "counts" and by_class else used[label]
            return amount / weights.get(label, 1.0)

        used = {label: sum(self.size(entries[age][1]) for _, age in members) for label, members in classes.items()}
        queue = [(-load(label), -label) for label in classes]
        heapq.heapify(queue)
        while queue:
            label = -heapq.heappop(queue)[1]
            _, age = classes[label].pop()
            slot, entry = entries[age]
            used[label] -= self.size(entry)
            if classes[label]:
                heapq.heappush(queue, (-load(label), -label))
            yield slot

    def check_front(
        self,
        gone: Collection[int],
        offered: Collection[Entry] = (),
        *,
        unseen: Collection[int] = (),
        weights: dict[int, float] | None = None,
    ) -> int | None:
        """See that those who went are the front of the order, and return the last of them.

        Of the `unseen` it is not known whether they went.
        """
        left, hidden, last = set(gone), set(unseen), None
        for slot in self.order(offered, weights):
            if not left:
                return last
            if slot in left:
                left.discard(slot)
                last = slot
            elif slot not in hidden:
                name = f"offered {-1 - slot}" if slot < 0 else f"slot {slot}"
                raise AssertionError(f"{name} was kept, {len(left)} of {len(gone)} that go after it are gone")
        assert not left, f"{sorted(left)[:9]} are gone and were not there"
        return last

    def expected(self, slot: int, *, committed: bool = False) -> tuple[dict[str, NDArray[Any]], Entry]:
        """Return the arrays that reading a slot must give, and its entry."""
        entry = (self.committed if committed else self.held)[slot]
        first = self.known.first_reads[entry.index]
        arrays = {f"{name} positions": tokens.positions for name, tokens in first.tokens.items()}
        arrays |= {f"{name} values": tokens.values for name, tokens in first.tokens.items()}
        extras = dict(first.extras) | (entry.extras or {})
        return arrays | {f"extra {name}": np.asarray(value) for name, value in extras.items()}, entry


def same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Say whether two arrays are the same bit for bit."""
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()
