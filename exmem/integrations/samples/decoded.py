"""Decoded exemplars in RAM."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.integrations.samples.fields import FieldLayout
from exmem.memory import ExemplarMemory
from exmem.recipes import Restorer
from exmem.replay.pipeline import Pipeline

__all__ = ["DecodedExemplars"]

_AT_ONCE = 256  # exemplars that are decoded together


class DecodedExemplars:
    """Reads exemplars as named tensors and keeps those it decoded, as many as some bytes of RAM hold.

    Nothing makes room for what comes later but an eviction: where all of a memory fits, each exemplar is decoded once;
    where a part does, that part is, which for draws at random is as good as any rule.
    """

    def __init__(self, memory: ExemplarMemory, layout: FieldLayout, *, ram_bytes: int) -> None:
        self._memory, self.layout = memory, layout
        self._pipeline = Pipeline(Restorer.of(memory)) if layout.by_recipe else None
        self._most = ram_bytes // max(1, sum(spec.nbytes for spec in layout.kept.values()))
        self._clear()

    def _clear(self) -> None:
        self._rows = np.full(0, -1, np.int64)  # of slots from `_first` on: where each is kept, -1 where it is not
        self._first = 0
        self._free: list[int] = []
        self._arrays: dict[str, NDArray[Any]] = {}  # what is kept, as NumPy sees it
        self._is_lent = False  # whether somebody may hold views of what is kept
        self._kept = {
            name: torch.empty((0, *spec.shape), dtype=spec.torch_dtype) for name, spec in self.layout.kept.items()
        }

    @property
    def ram_bytes(self) -> int:
        """Bytes of RAM that decoded exemplars take now."""
        return sum(values.nbytes for values in self._kept.values()) + self._rows.nbytes

    def read(
        self,
        slots: NDArray[np.int64],
        *,
        device: "torch.device | str" = "cpu",
        names: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Return fields of some exemplars, all unless some are named, as they were given, on a device."""
        rows = self._rows_of(slots)
        late = self._decode(np.unique(slots[rows < 0])) if len(rows) and rows.min() < 0 else {}
        if late:
            taken = self._mixed(slots, late)
        else:
            index = torch.from_numpy(self._rows_of(slots))
            wanted = self._kept if names is None else {name: self._kept[name] for name in names}
            taken = {name: values.index_select(0, index) for name, values in wanted.items()}
        if names is not None:
            taken = {name: taken[name] for name in names}
        return {name: self.layout.as_given(name, values.to(device)) for name, values in taken.items()}

    def keep_given(self, slots: NDArray[np.int64], fields: Mapping[str, Tensor]) -> None:
        """Keep exemplars that need no decoding, for they were given as they come back; none for which is no room."""
        rows = self._rows_for(len(slots))
        for name, values in fields.items():
            self._kept[name].index_copy_(0, torch.from_numpy(rows), values[: len(rows)].detach().to("cpu"))
        self._place(slots[: len(rows)], rows)

    def read_once(self, slots: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return all fields of some exemplars, as they were given, and keep nothing in RAM."""
        fields = self.layout.decoded(self._memory.read(slots), self._pipeline)
        return {name: self.layout.as_given(name, values) for name, values in fields.items()}

    def value(self, name: str, slot: int) -> Tensor:
        """Return a field of one exemplar, not to be changed: quick where it is kept, which `prepare` sees to."""
        place = slot - self._first
        row = int(self._rows[place]) if 0 <= place < len(self._rows) else -1
        if row < 0:
            return self.read(np.array([slot], np.int64))[name][0]
        if not self.layout.by_recipe:  # any tensor, such as floats, which transforms do change in place
            return self._copy(name, row)
        self._is_lent = True  # not copied: of a large image that takes longer than all else
        kept = self._kept[name][row]
        return kept if name in self.layout.unchanged else self.layout.as_given(name, kept[None])[0]

    def _copy(self, name: str, row: int) -> Tensor:
        kept = self._kept[name]
        if kept.dtype == torch.bfloat16:  # which NumPy does not know
            return kept[row].clone()
        if name not in self._arrays:
            self._arrays[name] = kept.numpy()
        return torch.from_numpy(np.array(self._arrays[name][row]))  # in a third of the time of `clone`

    def prepare(self, slots: NDArray[np.int64]) -> None:
        """Decode and keep what is not kept yet, as far as there is room."""
        missing = np.unique(slots[self._rows_of(slots) < 0])
        self._decode(missing[: max(0, self._most - int(np.sum(self._rows >= 0)))])

    def _rows_of(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        places = slots - self._first
        known = (places >= 0) & (places < len(self._rows))
        if known.all():
            return self._rows[places]
        return np.where(known, self._rows[np.where(known, places, 0)] if len(self._rows) else -1, -1)

    def _decode(self, slots: NDArray[np.int64]) -> dict[int, dict[str, Tensor]]:
        """Decode exemplars and keep them; return those for which there is no room."""
        late: dict[int, dict[str, Tensor]] = {}
        for start in range(0, len(slots), _AT_ONCE):
            chunk = slots[start : start + _AT_ONCE]
            fields = self.layout.decoded(self._memory.read(chunk), self._pipeline)
            rows = self._rows_for(len(chunk))
            for name, values in fields.items():
                self._kept[name][torch.from_numpy(rows)] = values[: len(rows)]
            self._place(chunk[: len(rows)], rows)
            for place, slot in enumerate(chunk[len(rows) :].tolist(), len(rows)):
                late[slot] = {name: values[place] for name, values in fields.items()}
        return late

    def _rows_for(self, count: int) -> NDArray[np.int64]:
        """Return up to so many free rows; the tensors grow by doubling, up to what is allowed and can be held."""
        if len(self._free) < count:
            now = len(next(iter(self._kept.values())))
            held = self._memory.max_exemplars
            most = self._most if held is None else min(self._most, max(held, now + count - len(self._free)))
            grown = min(most, max(2 * now, now + count))
            if grown > now:
                self._free.extend(reversed(range(now, grown)))
                self._arrays = {}
                self._kept = {
                    name: torch.cat([values, values.new_empty((grown - now, *values.shape[1:]))])
                    for name, values in self._kept.items()
                }
        return np.array([self._free.pop() for _ in range(min(count, len(self._free)))], np.int64)

    def _place(self, slots: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Note where exemplars are kept; slots only rise, so those below the first one kept are forgotten."""
        if not len(slots):
            return
        last = int(slots.max())
        if last >= self._first + len(self._rows) or slots.min() < self._first:
            held = np.flatnonzero(self._rows >= 0) + self._first
            first = int(min(slots.min(), held.min())) if len(held) else int(slots.min())
            most = max(last, int(held.max(initial=-1)))  # those that come may be older than all that are kept
            grown = np.full(max(most + 1 - first, 2 * len(held)), -1, np.int64)
            grown[held - first] = self._rows[held - self._first]
            self._rows, self._first = grown, first
        self._rows[slots - self._first] = rows

    def _mixed(self, slots: NDArray[np.int64], late: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        taken = {
            name: torch.empty((len(slots), *values.shape[1:]), dtype=values.dtype)
            for name, values in self._kept.items()
        }
        for place, (slot, row) in enumerate(zip(slots.tolist(), self._rows_of(slots).tolist(), strict=True)):
            for name, values in taken.items():
                values[place] = late[slot][name] if slot in late else self._kept[name][row]
        return taken

    def drop(self, slots: NDArray[np.int64]) -> None:
        """Forget exemplars that were evicted or changed."""
        rows = self._rows_of(slots)
        kept = np.asarray(slots)[rows >= 0]
        self._rows[kept - self._first] = -1  # before their rows are free for others
        if self._is_lent and len(kept):  # views stay as they are when the rows become those of others
            self._kept = {name: values.clone() for name, values in self._kept.items()}
            self._arrays, self._is_lent = {}, False
        self._free.extend(rows[rows >= 0].tolist())

    def forget(self) -> None:
        """Forget all; what was lent stays as it is."""
        self._clear()

    def keep_only(self, slots: NDArray[np.int64]) -> None:
        """Forget all but these."""
        self.drop(np.setdiff1d(np.flatnonzero(self._rows >= 0) + self._first, slots))

    def __getstate__(self) -> dict[str, object]:
        """Pickle what reopens the memory for reading, without what was decoded."""
        return {name: self.__dict__[name] for name in ("_memory", "layout", "_pipeline", "_most")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._clear()
