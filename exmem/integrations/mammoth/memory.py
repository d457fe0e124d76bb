"""What stands behind a buffer for mammoth: arrivals that wait, exemplars by place, fields that are written in place."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.errors import BudgetError, InvalidExemplarError, SchemaError, StoreNotFoundError
from exmem.integrations.mammoth.rules import SCORED, Arrivals, memory_options, rule_of
from exmem.integrations.mammoth.tensors import WrittenFields
from exmem.integrations.samples.fields import IMAGE
from exmem.integrations.samples.memory import FieldMemory
from exmem.memory import ExemplarMemory
from exmem.store import Place

__all__ = ["SCORE", "WAITING", "PlacedMemory"]

WAITING = 256  # arrivals: at 32 a step an eviction, which is a commit, every eighth step
SCORE = "score"
_NOTE = "mammoth"


class PlacedMemory:
    """A memory whose exemplars have places 0..N-1 by age, and whose arrivals wait for others where it is full.

    Places hold until exemplars come or go. `dataset` is what strategy `abs` asks; `options` are those of a FieldMemory.
    A copy or a pickle is another memory.
    """

    def __init__(
        self,
        strategy: str,
        *,
        max_exemplars: int,
        place: "Place | None" = None,
        seed: int | None = None,
        dataset: Any = None,
        **options: Any,
    ) -> None:
        recorded = None if place is None else _recorded_seed(place)
        if seed is None:
            # mammoth seeds this generator from --seed
            seed = int(np.random.randint(2**31)) if recorded is None else recorded  # noqa: NPY002
        self.strategy, self.seed, self.max_exemplars = strategy, seed, max_exemplars
        self._dataset = dataset if strategy == "abs" else None  # it goes into pickles
        self.is_kept, self._has_recipe = place is not None, options.get("recipe") is not None
        options |= memory_options(strategy, seed)
        self.fields = FieldMemory(place, max_exemplars=max_exemplars, **options)
        self._begin()
        try:
            self._resume(is_restored=False)
        except BaseException:
            self.fields.close()
            raise

    def _begin(self) -> None:
        self.rule = rule_of(self.strategy, self.fields, self.seed, dataset=self._dataset, scores=self._scores)
        self.has_labels: bool | None = None
        self._waiting: list[Arrivals] = []
        self._behind = self._staged = 0
        self._written = WrittenFields(self._read, self._write)
        self.slots, self.labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.names: list[str] = []  # fields of an exemplar beside the image and the label
        self.is_full = self._is_closed = self._is_prepared = False

    def _check_note(self, memory: ExemplarMemory) -> None:
        """Refuse a memory of no buffer, or of one with another strategy."""
        note = memory.attrs.get(_NOTE, {})
        if not note and memory.next_slot:
            raise SchemaError(f"{memory.location}: no buffer for mammoth made this memory; choose another place")
        if note and note["strategy"] != self.strategy:
            raise SchemaError(
                f"{memory.location}: made with the strategy {note['strategy']!r}, got {self.strategy!r}; give the "
                "same, or choose another place"
            )

    def _resume(self, *, is_restored: bool) -> None:
        """Go on with what the memory notes."""
        if not self.fields.exists:
            return
        memory = self.fields.memory
        self._check_note(memory)
        note = memory.attrs.get(_NOTE, {})
        if note and note["seed"] != self.seed and not is_restored:
            raise SchemaError(f"{memory.location}: made with seed {note['seed']}, got {self.seed}; leave the seed out")
        if note:
            self.seed = int(note["seed"])
            self._begin()
            self.has_labels = bool(note["labels"])
            self.rule.resume(note)
        self._changed()

    def _noted(self) -> dict[str, Any]:
        return {"strategy": self.strategy, "seed": self.seed, "labels": bool(self.has_labels), **self.rule.state()}

    @property
    def seen(self) -> int:
        """Arrivals so far, those that wait among them."""
        return self.rule.seen + self._behind

    @property
    def rows(self) -> int:
        """Rows of tensors that are handed out: as many as it may hold, until it is full; then as many as it holds."""
        return len(self.slots) if self.is_full or self.strategy == "unlimited" else self.max_exemplars

    def add(self, values: Mapping[str, Tensor], labels: Tensor | None = None, scores: Tensor | None = None) -> None:
        """Let arrivals come, the image among `values`; InvalidExemplarError if they are not like the others."""
        count = len(values[IMAGE])
        self._check(values, labels, scores)
        if not count:
            return
        classes = np.zeros(count, np.int64) if labels is None else labels.numpy(force=True).astype(np.int64)
        at, ranks = self.rule.above(count, classes, after=self._behind)
        if self.strategy in SCORED:
            assert scores is not None
            values = {**values, SCORE: scores.detach().to(torch.float32)}
            ranks = scores.numpy(force=True).astype(np.float64)[at]
        index = torch.from_numpy(at)
        some = {
            name: self._as_stored(name, held if len(at) == count else held[index.to(held.device)])
            for name, held in values.items()
        }
        if self.fields.exists:
            self.fields.decoded.layout.check(some, len(at))
        self._waiting.append(Arrivals(count, at, some, classes[at], ranks))
        self._behind += count
        if not self.is_full or self._behind >= WAITING:
            self.offer()
        if self.has_labels is None:
            self.has_labels = labels is not None
            self._annotate()

    def _check(self, values: Mapping[str, Tensor], labels: Tensor | None, scores: Tensor | None) -> None:
        count = len(values[IMAGE])
        given = {**values, "labels": labels, "sample_selection_scores": scores}
        short = {name: len(held) for name, held in given.items() if held is not None and len(held) != count}
        if short:
            raise InvalidExemplarError(f"expected {count} values of each, as there are examples, got {short}")
        if self.strategy in SCORED and scores is None:
            raise InvalidExemplarError(f"strategy {self.strategy!r} needs sample_selection_scores with the examples")
        if self.has_labels is not None and self.has_labels != (labels is not None):
            state = "were" if self.has_labels else "were not"
            raise InvalidExemplarError(
                f"labels {state} given with the exemplars before; give the same or empty() first"
            )
        if self.fields.exists and {*self.names, IMAGE} - {SCORE} != set(values):
            raise InvalidExemplarError(
                f"expected the same attributes as before, {sorted({*self.names} - {SCORE})} beside the examples, got "
                f"{sorted(set(values) - {IMAGE})}; give the same or empty() first"
            )

    def _as_stored(self, name: str, values: Tensor) -> Tensor:
        values = values.detach()
        if name != IMAGE:
            return values.to("cpu", torch.int64 if name.endswith("_labels") else torch.float32)
        if not self._has_recipe:
            return values.cpu()
        if not values.dtype.is_floating_point:
            raise InvalidExemplarError(
                f"examples: expected floats of 0..1, as ToTensor makes them, got {values.dtype}; recipe=None stores "
                "any tensor as it is"
            )
        if len(values):
            least, most = (float(bound) for bound in values.aminmax())
            if not (least >= 0 and most <= 1):  # NaN is neither
                raise InvalidExemplarError(
                    f"examples: expected floats of 0..1, got {least:.3g}..{most:.3g}; give images as they are before "
                    "they are normalised (not_aug_inputs)"
                )
        return values.mul(255).round_().to(torch.uint8).cpu()

    def offer(self) -> None:
        """Let those that wait in, or not."""
        if not self._waiting:
            return
        arrivals = Arrivals.joined(self._waiting)
        before = self.rule.seen
        try:
            self.rule.offer(arrivals)
        except BaseException as error:
            # They came in all the same, or never will: they are not offered once more.
            if self.rule.seen != before or isinstance(error, InvalidExemplarError | BudgetError):
                self._waiting, self._behind = [], 0
            self._changed()
            raise
        self._waiting, self._behind = [], 0
        self._staged += arrivals.count
        self._changed()
        if self.is_kept and self._staged >= WAITING and self.has_labels is not None:
            self._annotate()
            self.fields.commit()
            self._staged = 0

    def _changed(self) -> None:
        """Follow the memory after exemplars may have come or gone."""
        before, rows, self._is_prepared = self.slots, self.rows, False
        self.names = [name for name in self.fields.fields if name != IMAGE]
        self.slots, self.labels = self.fields.slots.copy(), self.fields.labels.copy()
        self.is_full = len(self.slots) >= self.max_exemplars or self.rule.seen > len(self.slots)
        if rows != self.rows or not np.array_equal(before, self.slots):
            self._written.moved(before, self.slots, self.rows)

    def _annotate(self) -> None:
        if self.fields.exists:
            memory = self.fields.memory
            evicted = memory.annotate(attrs={**memory.attrs, _NOTE: self._noted()})
            if len(evicted):
                self.fields.decoded.drop(evicted)
                self._changed()

    def read(
        self, places: NDArray[np.int64], device: "torch.device | str", *, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return fields of the exemplars at some places; `labels` is one, and images of a recipe are floats of 0..1."""
        if not self._is_prepared and len(places):
            self.fields.decoded.prepare(self.slots)  # all together, not a few at each draw
            self._is_prepared = True
        stored = [name for name in names if name != "labels" and name not in self._written]
        values = self.fields.decoded.read(self.slots[places], device=device, names=stored) if stored else {}
        if IMAGE in values and self._has_recipe:
            values[IMAGE] = torch.div(values[IMAGE], 255)
        index = torch.from_numpy(places)
        for name in names:
            if name == "labels":
                values[name] = torch.from_numpy(self.labels).index_select(0, index).to(device)
            elif name in self._written:
                values[name] = self.tensor(name).index_select(0, index).to(device)
        return values

    def tensor(self, name: str) -> Tensor:
        """Return a field of all exemplars, which may be written in place."""
        return self._written.tensor(name, self.slots, self.rows)

    def _read(self, name: str, slots: NDArray[np.int64]) -> Tensor:
        return self.fields.decoded.read(slots, names=[name])[name]

    def _write(self, name: str, slots: NDArray[np.int64], values: Tensor) -> None:
        stored = self._read(name, slots)
        differ = (stored != values).reshape(len(slots), -1).any(1).numpy()
        if differ.any():
            self.fields.update(slots[differ], {name: values[torch.from_numpy(differ)]})

    def _scores(self) -> NDArray[np.float64]:
        """Return the scores of all exemplars."""
        if not len(self.slots):
            return np.zeros(0)
        scores: NDArray[np.float64] = self.tensor(SCORE)[: len(self.slots)].numpy().astype(np.float64)
        return scores

    def score(self, places: Tensor, scores: Tensor) -> None:
        """Give exemplars other scores, where the strategy takes any."""
        if self.strategy in SCORED and len(places):
            self.tensor(SCORE)[places.cpu()] = scores.detach().to("cpu", torch.float32)

    def resize(self, max_exemplars: int) -> None:
        """Change how many exemplars it may hold."""
        self.offer()
        self._write_back()
        self.max_exemplars = max_exemplars
        self.fields.resize(max_exemplars=max_exemplars)
        self._changed()

    def _write_back(self) -> None:
        self._written.write_back(self.slots)
        if len(self.fields) != len(self.slots):  # larger values may have needed room
            self._changed()

    def commit(self) -> None:
        """Let in what waits, write back what was written, and make all of it durable and visible to readers."""
        self.offer()
        self._write_back()
        self._annotate()
        self.fields.commit()

    def clear(self) -> None:
        """Become as before the first add."""
        self.fields.clear()
        self._begin()

    def snapshot(self) -> bytes:
        """Return all of it as bytes."""
        self.commit()
        return self.fields.snapshot()

    def restore(self, data: bytes) -> None:
        """Become what `snapshot` returned, within the limits given here."""
        self.fields.restore(data, check=self._check_note)
        self._begin()
        self._resume(is_restored=True)

    def close(self) -> None:
        """Commit, and let others write; closing twice is no error."""
        if not self._is_closed:
            self.commit()
            self.fields.close()
            self._is_closed = True

    def __getstate__(self) -> dict[str, Any]:
        self.commit()
        kept = ("strategy", "seed", "_dataset", "max_exemplars", "_has_recipe", "fields")
        return {name: self.__dict__[name] for name in kept} | {"is_kept": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()
        self._resume(is_restored=True)


def _recorded_seed(place: Place) -> int | None:
    """Return the seed that a memory there notes."""
    try:
        memory = ExemplarMemory.open(place)
    except StoreNotFoundError:
        return None
    seed = memory.attrs.get(_NOTE, {}).get("seed")
    memory.close()
    return None if seed is None else int(seed)
