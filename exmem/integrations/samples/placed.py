"""Where a memory of samples lies, and how it comes to be there, goes, and is exchanged for another one."""

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from exmem.errors import DataError, ExmemError, SchemaError, StoreError, StoreNotFoundError
from exmem.integrations.samples.archive import read_files, write_files
from exmem.integrations.samples.checking import checked_layout
from exmem.integrations.samples.decoded import DecodedExemplars
from exmem.integrations.samples.fields import FieldLayout, FieldSpec, file_bytes, raw_bytes
from exmem.integrations.samples.folders import beside_of, files_of, finish_swap, put, remove, swap, temporary_folder
from exmem.memory import ExemplarMemory
from exmem.memory.reservoir import StreamReservoir
from exmem.recipes import BoundRecipe, Recipe
from exmem.store import Place, parse_bytes

__all__ = ["AnyRecipe", "PlacedMemory"]

AnyRecipe: TypeAlias = "str | Recipe | BoundRecipe | None"
_Check: TypeAlias = Callable[[ExemplarMemory], None]


class PlacedMemory:
    """A memory that is made when it is known what samples hold, or gone on with; of a call that is cut short, whole.

    What is decoded of it, and the stream that fills it, come and go with it.
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
        self._leaving: ExemplarMemory | None = None
        self._forget()
        self._place: Place = temporary_folder(self) if place is None else place
        self._find()

    def _find(self, *, is_restored: bool = False) -> bool:
        """Go on with what lies at the place, if there is a memory; say whether there is."""
        self._left()
        if isinstance(self._place, str | os.PathLike):
            finish_swap(self._root())
        with contextlib.suppress(StoreNotFoundError):  # it is made when it is known what samples hold
            self._go_on(self._open(self._place), is_restored=is_restored)
        return self.exists

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
        own = self._recipe.recipe if isinstance(self._recipe, BoundRecipe) else self._recipe
        return checked_layout(memory, recipe=own, eviction=self._options.get("eviction", "by_class"))

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
        return {"max_bytes": budget, "max_exemplars": most, "segment_bytes": file_bytes(budget)}

    def _make(self, values: Mapping[str, Tensor]) -> None:
        fields = {name: FieldSpec.of(held) for name, held in values.items()}
        layout = FieldLayout(fields, by_recipe=self._recipe is not None)
        bound = layout.bound(self._recipe)
        limits = self._limits_for(layout)
        segment_bytes = limits.pop("segment_bytes", None)
        place, root = self._place, self._root() if isinstance(self._place, str | os.PathLike) else None
        if root is not None and not (root.exists() and any(root.iterdir())):
            place = beside_of(root) / "new"  # it comes into its place when it notes what made it
        memory = ExemplarMemory.create(place, schema=layout.schema(bound), **limits, **self._options)
        memory.resize(segment_bytes=segment_bytes)
        memory.annotate(attrs=layout.to_json())
        if root is not None and place != self._place:
            self._leaving = memory
            self._left()
            put(root)
            memory = self._open(root)
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
            self.decoded.forget()  # before it: slots that were never put are given to others
            self._memory.discard()

    def clear(self) -> None:
        """Become as before the first add: exemplars, fields and the stream are forgotten."""
        root = self._root()
        self.discard()
        try:
            self._give_up()
            remove(root)
        except BaseException:
            self._found_again()
            raise

    def close(self) -> None:
        """Commit, and let others write."""
        if self._memory is not None:
            self._memory.close()

    def _give_up(self) -> None:
        self._leaving = self._memory
        self._forget()  # first: what is closed is not gone on with
        self._left()

    def _found_again(self) -> None:
        """Go on with the one or the other after a call that was cut short, or let the next call find it."""
        with contextlib.suppress(ExmemError):
            finish_swap(self._root())
            if not self.exists:
                self._find(is_restored=True)

    def _left(self) -> None:
        if self._leaving is not None:  # also of a call that was interrupted
            self._leaving.close()
            self._leaving = None

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
        write_files(file, self._root(), files_of(self._root()) if self.exists else [])

    def restore(self, data: bytes | IO[bytes], *, check: _Check = lambda memory: None) -> None:
        """Become what `snapshot` returned or wrote, within the limits given here; until it is, the disk holds both.

        Nothing is changed if the data are damaged (DataError), made otherwise (SchemaError), too large for the budget
        (BudgetError), or refused by `check`. A kill in the middle leaves the one or the other.
        """
        root = self._root()
        finish_swap(root)
        beside = beside_of(root)
        (beside / "new").mkdir(parents=True)
        try:
            holds_something = self._unpacked(data, beside / "new", check)
            self._give_up()
            swap(root)
            if holds_something:
                self._go_on(self._open(root), is_restored=True)
        except BaseException:
            self._found_again()
            raise

    def _unpacked(self, data: bytes | IO[bytes], folder: Path, check: _Check) -> bool:
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
            memory.renew()  # readers of this place are to know that it is another one than the snapshot was of
        return True

    def _root(self) -> Path:
        if not isinstance(self._place, str | os.PathLike):
            raise SchemaError("a memory in a Zarr store cannot be put into a checkpoint; give a folder as its place")
        return Path(self._place).expanduser().resolve()  # a link stays, and what it leads to is exchanged

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_limits", "_options", "_recipe", "_seed", "_ram_bytes")
        return {name: self.__dict__[name] for name in kept} | {"snapshot": self.snapshot()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        data = state.pop("snapshot")
        self.__dict__.update(state)
        self._leaving = None
        self._forget()
        self._place = temporary_folder(self)
        self.restore(data)

    @property
    def decoded(self) -> DecodedExemplars:
        """What reads exemplars; it goes into another process, which then sees what is committed."""
        if self._decoded is None:
            raise SchemaError("the memory is made at the first add, when it is known what samples hold; add some first")
        return self._decoded

    def _tidy(self, grown: float = 2) -> None:
        """Give back what evicted exemplars take once the files have grown so much since: what is copied stays less."""
        if self.memory.used_bytes > grown * self._tidy_bytes:
            self.memory.compact()
            self._tidy_bytes = self.memory.used_bytes
