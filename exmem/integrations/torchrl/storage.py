"""A storage of TorchRL replay buffers (`torchrl.data`) that counts bytes: an ExmemStorage in place of a memmap one."""

import os
import weakref
from collections.abc import Mapping
from multiprocessing.context import get_spawning_popen
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import TensorDictMaxValueWriter, TensorStorage
from torchrl.data.replay_buffers.storages import Storage
from typing_extensions import override

from exmem.errors import DataError, SchemaError
from exmem.integrations.samples.fields import IMAGE
from exmem.integrations.samples.memory import AnyRecipe, FieldMemory
from exmem.integrations.samples.ring_memory import UNLIMITED, RingMemory
from exmem.integrations.torchrl.checkpoint import ExmemCheckpointer
from exmem.integrations.torchrl.entries import EntryForm, rows_of, stacked, unsqueezed
from exmem.integrations.torchrl.indices import is_one, plain, rewind
from exmem.integrations.torchrl.updates import ConditionalUpdates
from exmem.memory import ExemplarMemory
from exmem.store import Place
from exmem.tokens.checks import shown, whole_number

__all__ = ["ExmemCheckpointer", "ExmemStorage"]

_NOTE = "entries"  # among the notes of a memory


class ExmemStorage(ConditionalUpdates, TensorStorage):  # type: ignore[misc]
    """A storage under a strict budget of bytes on disk; see the module for what `max_size` becomes.

    It goes wherever a LazyMemmapStorage goes, of one dimension. One process writes. A copy or a pickle of it is an
    independent one; to other processes that are spawned it does not go. In a place of its own, what is written
    is committed by every `set`, and another process may go on with it: give the same place. Without, it is a scratch
    folder of this process. Decoded entries are kept in RAM as far as `ram_bytes` go.

    Parameters
    ----------
    max_size : int, optional
        The most entries, beside the budget.
    place : path or zarr store, optional
        A folder that is missing or empty, or one in which an ExmemStorage was, whose entries are there again.
    max_bytes : int or str, optional
        The budget, such as "64MB"; what `max_size` entries take uncompressed when left out.
    image : str or tuple of str, optional
        Which tensor is the image that the recipe stores: "pixels" or ("next", "pixels"), uint8 or floats of 0..1, of 1
        or 3 channels. All is stored as it is when left out.
    recipe : str, Recipe or BoundRecipe
        How the image is stored.
    device : str or torch.device
        Where entries are when they are read; "auto" for that of the first ones.
    ram_bytes : int or str
        Bytes of RAM for decoded entries.

    Raises
    ------
    SchemaError
        If neither `max_size` nor `max_bytes` is given, or what is in the place is of another kind.
    """

    _default_checkpointer = ExmemCheckpointer

    def __init__(
        self,
        max_size: int | None = None,
        place: "Place | None" = None,
        *,
        max_bytes: int | str | None = None,
        image: "str | tuple[Any, ...] | None" = None,
        recipe: AnyRecipe = "jpeg",
        device: "str | torch.device" = "cpu",
        ram_bytes: int | str = "256MB",
    ) -> None:
        if max_size is None and max_bytes is None:
            raise SchemaError("give max_size, max_bytes or both: something must limit a storage")
        most = UNLIMITED if max_size is None else whole_number(max_size, "max_size", least=1)
        fields = FieldMemory(
            place,
            max_bytes=max_bytes,
            max_exemplars=None if max_size is None else most,
            recipe=None if image is None else recipe,
            eviction="by_priority",
            ram_bytes=ram_bytes,
        )
        self._ring = RingMemory(fields, most)
        Storage.__init__(self, most)  # not that of TensorStorage, which holds tensors
        self.ndim, self._last_cursor = 1, None
        self._form: EntryForm | None = None
        self.device = device if device == "auto" else torch.device(device)
        self._image = (image,) if isinstance(image, str) else image
        self._is_lasting = place is not None
        if fields.exists:
            self._take_up()

    @property
    def memory(self) -> ExemplarMemory:
        """The memory itself; SchemaError before the first entries make it."""
        return self._ring.fields.memory

    @property
    def max_size(self) -> int:
        """Places: as many as were asked for, or as the bytes hold once they are full."""
        return self._ring.max_size

    @max_size.setter
    def max_size(self, value: int) -> None:
        if value != self.max_size:
            raise SchemaError(f"expected max_size {self.max_size}, got {value}; make another storage of that size")

    @property
    def initialized(self) -> bool:
        """Whether there were entries."""
        return self._form is not None

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def _len(self) -> int:
        return len(self._ring)

    @_len.setter
    def _len(self, value: int) -> None:
        if value != len(self):  # writers set what `set` has set already
            raise SchemaError(f"expected the length {len(self)}, got {value}; entries are added by set()")

    @property
    def _total_shape(self) -> torch.Size:
        return torch.Size([self.max_size])

    def _max_size_along_dim0(self, *, single_data: Any = None, batched_data: Any = None) -> int:
        """Return `max_size` as it is for these entries: writers ask before they write."""
        self._ring.foresee(1 if batched_data is None else rows_of(batched_data))
        return self.max_size

    def set(self, cursor: Any, data: Any, *, set_cursor: bool = True) -> None:
        """Write entries, over those that have the same index; see the module for what happens when bytes are full.

        Parameters
        ----------
        cursor : int, slice, or sequence of int
            Their indices; new ones follow the last. An index that the ring has lost is taken modulo `max_size`.
        data : entries
            One for an int; else a batch of them, or a list.
        set_cursor : bool
            Whether it is an add, not a change of what is there.

        Raises
        ------
        IndexError
            If an index is not there and does not follow the last one.
        InvalidExemplarError
            If an entry does not look like the first; nothing was changed.
        BudgetError
            If an entry is larger than the budget, or the writer remembers indices and the bytes are full.
        """
        try:
            self._set(cursor, data, set_cursor=set_cursor)
        except BaseException:
            if set_cursor:
                rewind(self._attached, cursor, len(self))
            raise

    def _set(self, cursor: Any, data: Any, *, set_cursor: bool) -> None:
        batch = unsqueezed(data) if is_one(cursor) else stacked(data) if isinstance(data, list) else data
        index = self._ring.indices(self._indices(cursor, set_cursor=set_cursor), rows_of(batch))
        batch = batch if self._form is None else self._form.with_index(batch, index)
        form = EntryForm.of(batch, self._image) if self._form is None else self._form
        fields = form.fields(batch)
        if self._form is None:
            self._begin(form, fields)
        remembers = any(isinstance(getattr(one, "_writer", None), TensorDictMaxValueWriter) for one in self._attached)
        try:
            self._tell(self._ring.put(index, fields, remembers=remembers))
        finally:
            self._changed()
        if self._is_lasting:
            self.commit()
        if set_cursor:
            self._set_last_cursor(cursor)

    def get(self, index: Any) -> Any:
        """Return copies of entries; those of a slice are locked, for who writes into them means the storage.

        Parameters
        ----------
        index : int, slice, tensor, array, sequence or str
            As of a tensordict with one dimension.

        Returns
        -------
        entries
            One for an int; else a batch of them.

        Raises
        ------
        RuntimeError
            If there were no entries yet.
        IndexError
            If there is no such entry.
        """
        if self._form is None:
            raise RuntimeError("expected entries, got none so far; add some first")
        if isinstance(index, str) or (isinstance(index, tuple) and isinstance(index[0], str)):
            return self.get(slice(None))[index]
        if isinstance(index, tuple):
            return self._within(*index)
        slots = self._ring.slots[plain(index)]
        values = self._ring.fields.read(np.reshape(slots, -1), device=self.device)
        entries = self._form.entries(values, np.shape(slots), torch.device(self.device))
        return entries.lock_() if isinstance(index, slice) and isinstance(entries, TensorDictBase) else entries

    def _within(self, first: Any, *others: Any) -> Any:
        """Return parts of entries, as one index into all of them would."""
        entries = self.get(first)
        if not others or is_one(first):
            return entries[others] if others else entries
        rows = slice(None) if isinstance(first, slice) else torch.arange(len(entries))
        return entries[(rows, *others)]

    def commit(self) -> None:
        """Make all that was written durable and visible to other processes."""
        self._ring.commit()

    def close(self) -> None:
        """Commit, and let another process write."""
        self._ring.fields.close()

    @override
    def loads(self, path: "str | os.PathLike[str]") -> None:
        """Load what `dumps` wrote; see `ExmemCheckpointer`."""
        self.checkpointer.loads(self, path)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, for `torch.save` and the like.

        Returns
        -------
        dict
            The memory's files as one tensor of bytes, and what belongs to them.
        """
        data = bytearray(self._ring.fields.snapshot())
        return {"snapshot": torch.frombuffer(data, dtype=torch.uint8), "ring": self.ring()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Become what `state_dict` returned.

        Parameters
        ----------
        state_dict : mapping
            What it returned.

        Raises
        ------
        DataError
            If it is something else; nothing was changed.
        """
        given = state_dict if isinstance(state_dict, Mapping) else {}
        data, ring = given.get("snapshot"), given.get("ring")
        if not isinstance(data, Tensor) or not isinstance(ring, Mapping):
            raise DataError(f"expected what state_dict() of an ExmemStorage returned, got {shown(state_dict)}")
        self.become(data.numpy(force=True).tobytes(), ring)

    def write_snapshot(self, file: IO[bytes]) -> None:
        """Write what `state_dict` holds as bytes into a file.

        Parameters
        ----------
        file : file of bytes
            Open for writing.
        """
        self._ring.fields.write_snapshot(file)

    def ring(self) -> dict[str, Any]:
        """Return as JSON the slot of each index, the places, and the index that was written last."""
        return {"slots": self._ring.slots.tolist(), "room": self._ring.room, "last": self._last_cursor_index}

    def become(self, snapshot: bytes | IO[bytes], ring: Mapping[str, Any]) -> None:
        """Take over what a dump holds.

        Parameters
        ----------
        snapshot : bytes or file of bytes
            The files of a memory.
        ring : mapping
            What `ring` returned.
        """
        try:
            slots, room, last = np.array(ring["slots"], np.int64), ring["room"], ring["last"]
            room = None if room is None else whole_number(room, "room", least=1)
            last = None if last is None else whole_number(last, "last")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"expected what an ExmemStorage saved: {error!r}") from error

        def check(memory: ExemplarMemory) -> None:
            self._form_of(memory)
            if not np.array_equal(np.sort(slots), memory.slots):
                raise DataError("expected what an ExmemStorage saved: its ring names other entries than it holds")

        self._ring.fields.restore(snapshot, check=check)
        self._ring.clear(evict=False)
        self._form = None
        if self._ring.fields.exists:
            self._take_up(slots, room)
        self._set_last_cursor(last)
        self._changed()

    def _take_up(self, known: NDArray[np.int64] | None = None, room: int | None = None) -> None:
        """Go on with a memory that is there."""
        form = self._form_of(self.memory)
        if form is None:
            return
        self._ring.take_up(known, room)
        self._form = form
        self._close_at_exit()

    def _form_of(self, memory: ExemplarMemory) -> EntryForm | None:
        """Return how entries of a memory look; None where what made it was stopped before its first entry."""
        noted, location = memory.attrs.get(_NOTE), memory.location
        if noted is None and not len(memory):
            return None
        if not isinstance(noted, Mapping):
            raise SchemaError(f"{location}: no ExmemStorage made this memory; choose another place")
        form = EntryForm.from_json(noted, location)
        path = next(path for path, leaf in form.leaves if leaf.field == IMAGE)
        if self._image not in {None, path}:
            raise SchemaError(f"{location}: the image is {path} there, got {self._image}; choose another place")
        return form

    def _begin(self, form: EntryForm, fields: Mapping[str, Tensor]) -> None:
        """Make the memory, and note how entries look before there are any that would have to make room for it."""
        self._ring.fields.encode({name: values[:1] for name, values in fields.items()})
        self.memory.annotate(attrs={**self.memory.attrs, _NOTE: form.to_json()})
        self._form = form
        if self.device == "auto":
            self.device = next(iter(fields.values())).device
        self._close_at_exit()

    def _empty(self) -> None:
        self._ring.clear()
        self._changed()

    def _indices(self, cursor: Any, *, set_cursor: bool) -> NDArray[np.int64]:
        """Return the indices that a cursor means, as it gives them."""
        if isinstance(cursor, tuple) and len(cursor) == 1:
            return self._indices(cursor[0], set_cursor=set_cursor)
        if isinstance(cursor, slice):
            return np.arange(*cursor.indices(self.max_size if set_cursor and cursor.stop is not None else len(self)))
        given = np.asarray(plain(cursor))
        given = np.flatnonzero(given) if given.dtype == np.bool_ else given
        if given.dtype.kind not in "iu" and given.size:
            raise IndexError(f"expected integers as indices, got {given.dtype}")
        return given.reshape(-1).astype(np.int64)

    @property
    def _attached(self) -> list[Any]:
        return list(self._attached_entities)

    def _tell(self, index: NDArray[np.int64]) -> None:
        """Tell samplers that other entries than the writer says have these indices now."""
        for entity in self._attached if len(index) else ():
            if hasattr(entity, "mark_update"):
                entity.mark_update(torch.from_numpy(index))

    def _close_at_exit(self) -> None:
        if self._is_lasting:
            weakref.finalize(self, _closed, self.memory, os.getpid())

    def _changed(self) -> None:
        super()._bump_mutation_revision()

    def _bump_mutation_revision(self) -> None:
        """Refuse to be told of a change: whoever tells it has changed a copy."""
        raise NotImplementedError("entries that are read are copies; change them by buffer[index] = entries")

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen() is not None:
            raise RuntimeError("an ExmemStorage has one writer; give the other process its place, to open it there")
        return {**Storage.__getstate__(self), "_is_lasting": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Storage.__setstate__(self, state)

    def __repr__(self) -> str:
        held = repr(self.memory) if self.initialized else "empty"
        return f"{type(self).__name__}({held}, len={len(self)}, max_size={self.max_size})"


def _closed(memory: ExemplarMemory, pid: int) -> None:
    if os.getpid() == pid:  # a forked child has the finaliser, too
        memory.close()
