"""A memory whose exemplars are given and taken as named tensors: what the adapters hold."""

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from exmem.errors import DataError, ExmemError, InvalidExemplarError, SchemaError, StoreError, StoreNotFoundError
from exmem.integrations.samples.archive import read_files, write_files
from exmem.integrations.samples.decoded import DecodedExemplars
from exmem.integrations.samples.fields import TEXT, FieldLayout, FieldSpec, file_bytes, raw_bytes
from exmem.integrations.samples.folders import beside_of, files_of, finish_swap, swap, temporary_folder
from exmem.memory import AddReport, EncodedExemplars, ExemplarMemory
from exmem.memory.reservoir import StreamReservoir
from exmem.recipes import BoundRecipe, Recipe
from exmem.store import Place, parse_bytes
from exmem.tokens import Exemplar
from exmem.tokens.checks import as_array, mapping_of, shown

__all__ = ["AnyRecipe", "FieldMemory"]

AnyRecipe: TypeAlias = "str | Recipe | BoundRecipe | None"


class FieldMemory:
    """A memory of samples as named tensors: made at the first add, when it is known what they hold, or gone on with.

    `recipe` says how images are stored, None stores any tensor as it is; `seed`, with eviction `by_priority`, makes it
    a uniform sample of all that came. Without `max_bytes` the budget is `raw_bytes` of `max_exemplars`; `options` are
    those of `ExemplarMemory.create`. A copy, a pickle, or one without a place lies in a folder of its own process.
    """

    def __init__(
        self,
        place: "Place | None" = None,
        *,
        max_bytes: int | str | None = None,
        max_exemplars: int | None = None,
        recipe: AnyRecipe = "jpeg",
        seed: int | None = None,
        ram_bytes: int | str = "256MB",
        **options: Any,
    ) -> None:
        if max_bytes is None and max_exemplars is None:
            raise SchemaError("give max_bytes, max_exemplars or both: something must limit a memory")
        self._limits: dict[str, int | None] = {
            "max_bytes": None if max_bytes is None else parse_bytes(max_bytes),
            "max_exemplars": max_exemplars,
        }
        self._options: dict[str, Any] = {"durable": False, **options}
        self._recipe = recipe if recipe is None or isinstance(recipe, BoundRecipe) else Recipe.of(recipe)
        self._seed, self._ram_bytes = seed, parse_bytes(ram_bytes)
        self._forget()
        self._place: Place = temporary_folder(self) if place is None else place
        if isinstance(self._place, str | os.PathLike):
            finish_swap(self._root())
        with contextlib.suppress(StoreNotFoundError):  # it is made when it is known what samples hold
            self._go_on(self._open(self._place))

    def _forget(self) -> None:
        self._memory: ExemplarMemory | None = None
        self._layout: FieldLayout | None = None
        self._bound: BoundRecipe | None = None
        self._decoded: DecodedExemplars | None = None
        self._stream: StreamReservoir | None = None
        self._tidy_bytes = 0

    def _open(self, place: Place) -> ExemplarMemory:
        opening = {name: self._options[name] for name in ("durable", "threads") if name in self._options}
        return ExemplarMemory.open(place, mode="r+", **opening)

    def _layout_of(self, memory: ExemplarMemory) -> FieldLayout:
        """Return how a memory holds samples; SchemaError if it was made otherwise than this one would make it."""
        if memory.eviction != self._options.get("eviction", "by_class"):
            raise SchemaError(f"{memory.location}: made with eviction {memory.eviction!r}; choose another place")
        recorded = None if memory.schema.recipe is None else memory.schema.recipe["recipe"]
        own = self._recipe.recipe if isinstance(self._recipe, BoundRecipe) else self._recipe
        given = None if own is None else own.to_json()
        if recorded != given:
            raise SchemaError(
                f"{memory.location}: made with {_told(recorded, given)}, got {_told(given, recorded)}; give the same, "
                "or choose another place"
            )
        return FieldLayout.noted(memory.attrs, memory.schema, memory.location)

    def _go_on(self, memory: ExemplarMemory, *, is_restored: bool = False) -> None:
        """Go on with a memory that is there, within the limits given."""
        try:
            layout = self._layout_of(memory)
            if self._seed is not None and memory.reservoir_state is not None and is_restored:
                self._seed = StreamReservoir(memory).seed  # the stream goes on as it began
            self._hold(memory, layout, layout.bound(self._recipe))
            self.resize()
        except BaseException:
            memory.close()
            self._forget()
            raise

    def _hold(self, memory: ExemplarMemory, layout: FieldLayout, bound: BoundRecipe | None) -> None:
        self._memory, self._layout, self._bound = memory, layout, bound
        self._decoded = DecodedExemplars(memory, layout, ram_bytes=self._ram_bytes)
        self._stream = None if self._seed is None else StreamReservoir(memory, seed=self._seed)
        self._tidy_bytes = memory.used_bytes

    def _limits_for(self, layout: FieldLayout) -> dict[str, Any]:
        """Return the limits of a memory of such samples: a budget that was left out follows the count."""
        most, budget = self._limits["max_exemplars"], self._limits["max_bytes"]
        if budget is not None:
            return {"max_bytes": budget, "max_exemplars": most}
        budget = raw_bytes(most or 0, layout.fields)
        return {
            "max_bytes": budget,
            "max_exemplars": most,
            "segment_bytes": self._options.get("segment_bytes", file_bytes(budget)),
        }

    def _make(self, values: Mapping[str, Tensor]) -> None:
        fields = {name: FieldSpec.of(held) for name, held in values.items()}
        layout = FieldLayout(fields, by_recipe=self._recipe is not None)
        bound = layout.bound(self._recipe)
        limits = self._limits_for(layout)
        segment_bytes = limits.pop("segment_bytes", None)
        memory = ExemplarMemory.create(self._place, schema=layout.schema(bound), **limits, **self._options)
        memory.resize(segment_bytes=segment_bytes)
        memory.annotate(attrs=layout.to_json())
        self._hold(memory, layout, bound)

    @property
    def memory(self) -> ExemplarMemory:
        """The memory; SchemaError before the first add makes it."""
        if self._memory is None:
            raise SchemaError("the memory is made at the first add, when it is known what samples hold; add some first")
        return self._memory

    @property
    def exists(self) -> bool:
        """Whether the memory is there."""
        return self._memory is not None

    def __len__(self) -> int:
        return 0 if self._memory is None else len(self._memory)

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots of all exemplars, what is not committed yet among them."""
        return np.zeros(0, np.int64) if self._memory is None else self._memory.slots

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their labels."""
        return np.zeros(0, np.int64) if self._memory is None else self._memory.labels

    @property
    def seen(self) -> int:
        """Samples that came so far, where it is a uniform sample of them."""
        return 0 if self._stream is None else self._stream.seen

    @property
    def fields(self) -> dict[str, FieldSpec]:
        """Fields of a sample; none before the first add."""
        return {} if self._layout is None else dict(self._layout.fields)

    @property
    def decoded(self) -> DecodedExemplars:
        """What reads exemplars; it goes into another process, which then sees what is committed."""
        if self._decoded is None:
            raise SchemaError("the memory is made at the first add, when it is known what samples hold; add some first")
        return self._decoded

    def add(
        self, values: Mapping[str, Any], labels: ArrayLike | None = None, priorities: ArrayLike | None = None
    ) -> AddReport:
        """Add samples, whose fields are tensors or arrays (B, ...); what the limits do not hold is evicted.

        Labels are 0 when left out; a stream asks for no priorities. InvalidExemplarError, and nothing is added, if one
        does not look like those before it.
        """
        given, classes, ranks = self._checked(values, labels, priorities)
        with self._made_for(given):
            if self._stream is not None:
                return self.offer(len(classes), np.arange(len(classes)), given, classes)
            return self.add_encoded(self._encoded(given, classes, ranks), given)

    def encode(
        self, values: Mapping[str, Any], labels: ArrayLike | None = None, priorities: ArrayLike | None = None
    ) -> EncodedExemplars:
        """Encode samples and store nothing: what is wrong with them shows before anything is evicted for them."""
        given, classes, ranks = self._checked(values, labels, priorities)
        with self._made_for(given):
            return self._encoded(given, classes, ranks)

    @contextlib.contextmanager
    def _made_for(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Make the memory for the first samples; it is forgotten if these are refused, so that others may be first."""
        is_first = self._memory is None
        if is_first:
            self._make(values)
        try:
            yield
        except ExmemError:
            if is_first and isinstance(self._place, str | os.PathLike):
                self.clear()
            raise

    def add_encoded(self, encoded: EncodedExemplars, values: Mapping[str, Tensor]) -> AddReport:
        """Add what `encode` made of values, which are kept as decoded ones where they come back as they are."""
        report = self._reported(lambda memory: memory.add(encoded))
        if self._bound is None and len(report.slots) and report.slots.min() >= 0:
            self.decoded.keep_given(report.slots, values)
        return report

    def _checked(
        self, values: Mapping[str, Any], labels: ArrayLike | None, priorities: ArrayLike | None
    ) -> tuple[dict[str, Tensor], NDArray[np.int64], NDArray[np.float64]]:
        given = {name: torch.as_tensor(held) for name, held in mapping_of(values, "values").items()}
        count = len(next(iter(given.values()), ()))
        classes = np.zeros(count, np.int64) if labels is None else as_array(labels)
        if classes.shape != (count,) or classes.dtype.kind not in "iu":
            raise InvalidExemplarError(f"labels: expected {count} integers, got {classes.dtype} of {classes.shape}")
        ranks = np.zeros(count) if priorities is None else as_array(priorities).astype(np.float64)
        if ranks.shape != (count,):
            raise InvalidExemplarError(f"priorities: expected {count}, got shape {ranks.shape}")
        return given, classes.astype(np.int64), ranks

    def _encoded(
        self, given: Mapping[str, Tensor], classes: NDArray[np.int64], ranks: NDArray[np.float64]
    ) -> EncodedExemplars:
        assert self._layout is not None
        if self._bound is None and TEXT not in self._layout.fields:  # as arrays: many times as fast as one by one
            return self.memory.encode(self._layout.batch(given, classes, ranks))
        return self.memory.encode(self._layout.exemplars(given, self._bound, classes, ranks))

    def above(self, count: int, *, after: int = 0) -> NDArray[np.int64]:
        """Name those of the next arrivals of a stream, behind `after` others, that have a chance."""
        return np.arange(count) if self._stream is None else self._stream.above(count, after=after)

    def offer(
        self, count: int, at: NDArray[np.int64], values: Mapping[str, Tensor], labels: NDArray[np.int64]
    ) -> AddReport:
        """Offer the next arrivals of a stream; those at the indices `at` are given, all that `above` names."""
        stream, layout = self._stream, self._layout
        if stream is None or layout is None:
            raise SchemaError("only a stream that has begun takes arrivals: give seed=, and add some first")
        layout.check(values, len(at))  # of all, for few of them are made

        def made(indices: NDArray[np.int64]) -> list[Exemplar]:
            rows = np.searchsorted(at, indices)
            if len(rows) and (rows[-1] >= len(at) or not np.array_equal(at[rows], indices)):
                raise InvalidExemplarError(
                    "expected all arrivals that have a chance, got fewer; ask above() which they are"
                )
            some = values if len(rows) == len(at) else {name: held[rows] for name, held in values.items()}
            return layout.exemplars(some, self._bound, labels[rows], np.zeros(len(rows)))

        return self._reported(lambda memory: stream.offer(count, made))

    def _reported(self, add: Callable[[ExemplarMemory], AddReport]) -> AddReport:
        try:
            report = add(self.memory)
        except ExmemError:
            self.decoded.keep_only(self.slots)  # some may be evicted
            raise
        self.decoded.drop(report.evicted)
        self._tidy()
        return report

    def _tidy(self, grown: float = 2) -> None:
        """Give back what evicted exemplars take once the files have grown so much since: what is copied stays less."""
        if self.memory.used_bytes > grown * self._tidy_bytes:
            self.memory.compact()
            self._tidy_bytes = self.memory.used_bytes

    def read(self, slots: NDArray[np.int64], *, device: "torch.device | str" = "cpu") -> dict[str, Tensor]:
        """Return all fields of some exemplars, as they were given."""
        return self.decoded.read(slots, device=device)

    def update(self, slots: NDArray[np.int64], values: Mapping[str, Any]) -> None:
        """Give exemplars other values of fields that are neither image nor text."""
        evicted = self.memory.update(slots, extras={name: as_array(held) for name, held in values.items()})
        self.decoded.drop(np.union1d(slots, evicted))
        self._tidy()

    def evict(self, slots: NDArray[np.int64]) -> None:
        """Evict exemplars."""
        self.memory.evict(slots)
        self.decoded.drop(slots)
        self._tidy()

    def resize(self, **limits: Any) -> None:
        """Change `max_bytes` or `max_exemplars`; going down evicts by policy; a budget left out follows the count."""
        self._limits |= limits
        if self._memory is not None and self._layout is not None:
            self.decoded.drop(self._memory.resize(**self._limits_for(self._layout)))

    def commit(self) -> None:
        """Make what was added durable and visible to readers."""
        if self._memory is not None:
            self._memory.commit()

    def discard(self) -> None:
        """Forget what was added since the last commit."""
        if self._memory is not None:
            self._memory.discard()
            self.decoded.keep_only(self.slots)

    def clear(self) -> None:
        """Become as before the first add: exemplars, fields and the stream are forgotten."""
        root = self._root()
        self.discard()
        self.close()
        self._forget()
        shutil.rmtree(root, ignore_errors=True)

    def close(self) -> None:
        """Commit, and let others write."""
        if self._memory is not None:
            self._memory.close()

    def snapshot(self) -> bytes:
        """Commit, and return all of the memory's files in one piece: for a checkpoint of a method that holds it."""
        with io.BytesIO() as file:
            self.write_snapshot(file)
            return file.getvalue()

    def write_snapshot(self, file: IO[bytes]) -> None:
        """Write what `snapshot` returns into a file, without holding it in RAM."""
        self.commit()
        if self.exists:
            self._tidy(grown=1)
        root = self._root()
        write_files(file, root, files_of(root) if self.exists else [])

    def restore(
        self, data: bytes | IO[bytes], *, check: Callable[[ExemplarMemory], None] = lambda memory: None
    ) -> None:
        """Become what `snapshot` returned or wrote, within the limits given here; what is held until now goes.

        Nothing is changed if the data are damaged (DataError), made otherwise (SchemaError), too large for the budget
        (BudgetError), or refused by `check`. A kill in the middle leaves the one or the other.
        """
        root = self._root()
        finish_swap(root)
        beside = beside_of(root)
        (beside / "new").mkdir(parents=True)
        try:
            holds_something = self._unpacked(data, beside / "new", check)
            self.close()
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        self._forget()
        swap(root)
        if holds_something:
            self._go_on(self._open(root), is_restored=True)

    def _unpacked(self, data: bytes | IO[bytes], folder: Path, check: Callable[[ExemplarMemory], None]) -> bool:
        """Unpack a snapshot into an empty folder and fit it into the limits; say whether it holds a memory."""
        try:
            read_files(io.BytesIO(data) if isinstance(data, bytes) else data, folder)
            if not any(folder.iterdir()):
                return False
            memory = self._open(folder)
        except (DataError, StoreError) as error:
            raise DataError(f"expected what snapshot() returned: {error}") from error
        with memory:
            layout = self._layout_of(memory)
            check(memory)
            memory.resize(**self._limits_for(layout))
        return True

    def _root(self) -> Path:
        if not isinstance(self._place, str | os.PathLike):
            raise SchemaError("a memory in a Zarr store cannot be put into a checkpoint; give a folder as its place")
        return Path(self._place).expanduser().absolute()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_limits", "_options", "_recipe", "_seed", "_ram_bytes")
        return {name: self.__dict__[name] for name in kept} | {"snapshot": self.snapshot()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        data = state.pop("snapshot")
        self.__dict__.update(state)
        self._forget()
        self._place = temporary_folder(self)
        self.restore(data)


def _told(recipe: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    """Say a recipe by what differs from another one."""
    if recipe is None or other is None:
        return "no recipe" if recipe is None else f"the recipe {recipe.get('name')!r}"
    return "a recipe of " + ", ".join(f"{key} {shown(recipe[key])}" for key in recipe if recipe[key] != other.get(key))
