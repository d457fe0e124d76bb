"""The replay buffer of mammoth, under a budget of bytes: give `Buffer` to its methods in the place of their own."""

import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exmem.errors import DataError, InvalidExemplarError, SchemaError
from exmem.integrations.mammoth.draws import NAMES, Draws
from exmem.integrations.mammoth.memory import PlacedMemory
from exmem.integrations.mammoth.tensors import ReadOnlyTensor
from exmem.integrations.samples.fields import IMAGE
from exmem.integrations.samples.memory import AnyRecipe
from exmem.memory import ExemplarMemory
from exmem.store import Place

__all__ = ["Buffer"]

_UNLIMITED = 10**9
_KEY = "exmem"  # in a checkpoint, beside mammoth's names


class Buffer(Draws):
    """Exemplars for the methods of mammoth: its buffer's constructor and methods, and a budget of real bytes.

    Exemplars are numbered by age, 0..len-1; a number holds until exemplars come or go. Where the buffer is full, up to
    256 arrivals wait in RAM, those only that have a chance, and are offered together: `num_seen_examples` counts them,
    draws find them afterwards. Asking for all (`get_all_data`, `.examples`, `serialize`, `commit`, ...) lets them in at
    once, unless a `get_data(return_index=True)` came after the last `add_data`: its indexes hold until the next.

    `.logits`, `.task_labels` and `.true_labels` may be written in place, as X-DER does: draws see it at once, and it is
    stored at the next `serialize`, `commit` or `close`. `.examples` and `.labels` refuse it, and where the device is
    not
    the CPU so do all of them. While the buffer is not full these tensors have `buffer_size` rows, as in mammoth, of
    which the first `len(buffer)` are exemplars; then as many as it holds. Methods that read all, `empty` the buffer and
    add a part again (iCaRL, X-DER, BiC) encode images once more each time: with recipe `raw` nothing is lost by it,
    with
    `jpeg` a little the first times.

    Parameters
    ----------
    buffer_size : int
        The most exemplars; not looked at by the strategy `unlimited`.
    device : str or torch.device
        Where batches go; exemplars stay on disk and, decoded, in RAM.
    sample_selection_strategy : str
        `reservoir`: a uniform sample of all that came. `unlimited`: the same without a limit in samples. `balancoir` or
        `balanced`: as many of each class, and of each class a uniform sample of its arrivals. `lars`, `labrs`, `abs`:
        arrivals come in with the chance of a reservoir, and who goes is drawn as in mammoth by the scores that are
        given with arrivals and by `sample_selection_fn.update` (and by the class, or the task of the class). Where
        bytes are the limit, the highest score goes.
    place : path or zarr store, optional
        A folder that is missing or empty, or one that a buffer made, which goes on; other processes may read it. A
        folder of this process, which goes with it, when left out. In a Zarr store `empty` and checkpoints are refused.
    max_bytes : int or str, optional
        The budget; that of `buffer_size` raw samples when left out.
    recipe : str, Recipe, BoundRecipe or None
        How images are stored. `jpeg` loses a little; `raw` stores floats made of uint8 bit for bit; None any tensor.
    ram_bytes : int or str
        Bytes of RAM for decoded exemplars.
    seed : int, optional
        Decides which arrivals are kept. When left out: that of the memory at the place, else one drawn from NumPy's
        generator, which mammoth seeds.
    **kwargs : Any
        `dataset`, which the strategy `abs` asks where the classes of the task begin; `n_tasks` is not looked at.

    Raises
    ------
    SchemaError
        If an option or the strategy is unknown, or the memory at the place was made otherwise.
    """

    def __init__(
        self,
        buffer_size: int,
        device: "torch.device | str" = "cpu",
        sample_selection_strategy: str = "reservoir",
        *,
        place: "Place | None" = None,
        max_bytes: int | str | None = None,
        recipe: AnyRecipe = "jpeg",
        ram_bytes: int | str = "256MB",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if unknown := sorted(set(kwargs) - {"dataset", "n_tasks"}):
            raise SchemaError(f"unknown options {unknown}; mammoth's are dataset and n_tasks")
        self.sample_selection_strategy = sample_selection_strategy.lower()
        is_unlimited = self.sample_selection_strategy == "unlimited"
        if not is_unlimited and buffer_size < 1:
            raise SchemaError(f"buffer_size: expected 1 or more, got {buffer_size}; 'unlimited' is a strategy")
        self._held = PlacedMemory(
            self.sample_selection_strategy,
            max_exemplars=_UNLIMITED if is_unlimited else int(buffer_size),
            place=place,
            seed=seed,
            dataset=kwargs.get("dataset"),
            max_bytes=max_bytes,
            recipe=recipe,
            ram_bytes=ram_bytes,
        )
        self.device = device
        self._begin()

    def _begin(self) -> None:
        super()._begin()
        self._is_loading = False
        self._closing: tuple[ExemplarMemory, weakref.finalize[Any, Buffer]] | None = None
        self._close_at_exit()

    def _close_at_exit(self) -> None:
        """Commit when the process ends, if it has a place: registered after the memory was opened, it goes first."""
        if not self._held.is_kept or not self._held.fields.exists:
            return
        if self._closing is None or self._closing[0] is not self.memory:
            if self._closing is not None:
                self._closing[1].detach()
            self._closing = self.memory, weakref.finalize(self, _close, self._held, os.getpid())

    @property
    def memory(self) -> ExemplarMemory:
        """The memory behind it; SchemaError before the first `add_data`."""
        return self._held.fields.memory

    def add_data(
        self,
        examples: Tensor,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
        task_labels: Tensor | None = None,
        attention_maps: Sequence[Tensor] | None = None,
        true_labels: Tensor | None = None,
        sample_selection_scores: Tensor | None = None,
    ) -> None:
        """Let examples come; the strategy decides which are kept.

        Parameters
        ----------
        examples : Tensor, shape (B, ...)
            Images as floats of 0..1, as ToTensor makes them; anything with recipe None.
        labels : Tensor, shape (B,), optional
            Their classes.
        logits : Tensor, shape (B, ...), optional
            Outputs of the network, stored as float32.
        task_labels : Tensor, shape (B,), optional
            Stored as int64.
        attention_maps : sequence of Tensor, optional
            Refused.
        true_labels : Tensor, shape (B,), optional
            Stored as int64.
        sample_selection_scores : Tensor, shape (B,), optional
            What `lars`, `labrs` and `abs` go by: the higher, the likelier it goes.

        Raises
        ------
        InvalidExemplarError
            If they do not look like those before them, which hold the same attributes; none of them came.
        BudgetError
            If one would not fit even an empty memory.
        """
        if attention_maps is not None:
            raise InvalidExemplarError("attention maps are not stored; use mammoth's own buffer for them (TwF)")
        given = {IMAGE: examples, "logits": logits, "task_labels": task_labels, "true_labels": true_labels}
        self._has_indexes = False
        self._held.add(
            {name: torch.as_tensor(values) for name, values in given.items() if values is not None},
            labels,
            sample_selection_scores,
        )
        self._close_at_exit()

    def is_empty(self) -> bool:
        """Say whether nothing is held."""
        return not len(self)

    def is_full(self) -> bool:
        """Say whether as many came as it may hold, or more than fit."""
        return self.num_seen_examples >= self.buffer_size or self._held.is_full

    def empty(self) -> None:
        """Forget all exemplars, how many came, and which attributes they had."""
        self._has_indexes = False
        self._held.clear()

    def to(self, device: "torch.device | str") -> "Buffer":
        """Say where batches go from now on; returns the buffer.

        Parameters
        ----------
        device : str or torch.device
            Where they go; exemplars stay where they are.
        """
        self.device = device
        return self

    @property
    def num_seen_examples(self) -> int:
        """Examples that came, those that wait among them. Setting it to 0 empties the buffer; else it cannot be set."""
        return self._held.seen

    @num_seen_examples.setter
    def num_seen_examples(self, count: int) -> None:
        # What mammoth sets after loading are the rows, not the count.
        is_rows = self._is_loading and count == self.buffer_size
        self._is_loading = False
        if is_rows or count == self.num_seen_examples:
            return
        if count:
            raise SchemaError(f"num_seen_examples is counted, {self.num_seen_examples} came; it can be set to 0 only")
        self.empty()

    @property
    def buffer_size(self) -> int:
        """The most exemplars. Setting it lower evicts by the strategy; a budget that was left out follows."""
        return self._held.max_exemplars

    @buffer_size.setter
    def buffer_size(self, count: int) -> None:
        if self.sample_selection_strategy != "unlimited" and count != self.buffer_size:
            self._held.resize(int(count))

    @property
    def attributes(self) -> list[str]:
        """Names of what an exemplar may have."""
        return list(NAMES)

    @attributes.setter
    def attributes(self, names: Sequence[str]) -> None:
        if unknown := sorted(set(names) - {*NAMES, _KEY}):
            raise SchemaError(f"attributes are {', '.join(NAMES)}; got {unknown}")

    @property
    def sample_selection_fn(self) -> "Buffer":
        """What takes new scores, by `update`: the buffer itself."""
        return self

    def update(self, indexes: Any, values: Tensor) -> None:
        """Give exemplars other scores; no strategy but `lars`, `labrs` and `abs` looks at them.

        Parameters
        ----------
        indexes : Tensor or array-like, shape (B,), integer
            Numbers of exemplars, as `get_data(return_index=True)` gave them.
        values : Tensor, shape (B,)
            Their scores.
        """
        self._held.score(torch.as_tensor(indexes), values)

    def __getattr__(self, name: str) -> Tensor:
        if name not in NAMES or name not in self.used_attributes:
            raise AttributeError(f"a buffer has no {name!r}, or not before exemplars were added that have it")
        self._settle()
        if name not in {"examples", "labels"}:
            held = self._held.tensor(name)
            is_here = torch.device(self.device).type == "cpu"
            return held if is_here else held.to(self.device).as_subclass(ReadOnlyTensor)
        [values] = self._taken(np.arange(len(self)), self.device, [name])
        rows = values.new_zeros((self._held.rows - len(values), *values.shape[1:]))
        return (torch.cat([values, rows]) if len(rows) else values).as_subclass(ReadOnlyTensor)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == _KEY:
            self._load(value)
        elif name not in NAMES:
            super().__setattr__(name, value)
        elif not isinstance(value, Tensor) or value.ndim != 2 or value.shape[1]:
            raise SchemaError(
                f"{name} cannot be set: add_data() takes exemplars, and checkpoints of this buffer restore them; one "
                "of mammoth's own buffer does not say how many of its rows are exemplars"
            )

    def serialize(self, out_device: "torch.device | str" = "cpu") -> dict[str, Tensor]:
        """Return what goes into a checkpoint, and comes back by being set as attributes, as mammoth does.

        Parameters
        ----------
        out_device : str or torch.device
            Where the tensors lie.

        Returns
        -------
        dict of str to Tensor
            `exmem`: everything, as bytes; and by the names of mammoth, which looks at the rows, tensors of
            `buffer_size` rows without columns.
        """
        used = self.used_attributes or ["examples"]
        rows = torch.empty((self.buffer_size, 0), device=out_device)
        data = torch.frombuffer(bytearray(self._held.snapshot()), dtype=torch.uint8)
        return {**dict.fromkeys(used, rows), _KEY: data.to(out_device)}

    def _load(self, data: Any) -> None:
        if not isinstance(data, Tensor) or data.dtype != torch.uint8:
            raise DataError(f"expected the bytes that serialize() returned, got {type(data).__name__}")
        self._has_indexes = False
        self._held.restore(data.numpy(force=True).tobytes())
        self._is_loading = True
        self._close_at_exit()

    def commit(self) -> None:
        """Let in what waits, and make all exemplars durable and visible to readers in other processes."""
        self._has_indexes = False
        self._held.commit()

    def close(self) -> None:
        """Commit, and let others write; what has a place does so when the process ends, too."""
        self._has_indexes = False
        if self._closing is not None:
            self._closing[1].detach()
        self._held.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_closing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


def _close(held: PlacedMemory, pid: int) -> None:
    if os.getpid() == pid:  # a forked child has the finaliser, too
        held.close()
