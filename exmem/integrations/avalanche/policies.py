"""Storage policies of Avalanche 0.6 whose exemplars lie in a memory."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training.storage_policy import ExemplarsBuffer
from numpy.typing import NDArray
from torch import Tensor

from exmem.errors import SchemaError
from exmem.integrations.avalanche.data import ExemplarRows, exemplar_dataset, transforms_of
from exmem.integrations.avalanche.samples import (
    TASKS,
    ImageText,
    SampleForm,
    SampleSource,
    best_of_groups,
    image_text_collate,
)
from exmem.integrations.samples.memory import AnyRecipe, FieldMemory
from exmem.memory import ExemplarMemory
from exmem.memory.quota import class_quotas
from exmem.store import Place
from exmem.tokens.checks import choice, whole_number

__all__ = ["ImageText", "MemoryBuffer", "image_text_collate"]

_AT_ONCE, _NOTE = 256, "avalanche"  # samples in RAM when they are stored; among the notes of a memory


@dataclasses.dataclass(frozen=True)
class _Group:
    """Exemplars of one group, as the groups of Avalanche's buffers are read."""

    buffer: Any
    max_size: int


class MemoryBuffer(ExemplarsBuffer):  # type: ignore[misc]  # the peer has no types
    """A storage policy for ReplayPlugin, DER and others whose exemplars lie in a memory.

    Groups share `max_size` equally; one that does not use its share lends it. Within a group a uniform sample of all
    that came stays, or what a selection strategy puts first. After each experience the memory is committed, and can be
    opened with exmem like any other. A copy or a pickle is another buffer, with all exemplars, in a folder of its own
    process.

    Parameters
    ----------
    max_size : int
        The most exemplars, `mem_size` of the plugin.
    groupby : {"class", "experience", "task"} or None
        What shares the buffer; None for a uniform sample of everything (a reservoir).
    selection_strategy : ExemplarsSelectionStrategy, optional
        Orders the samples of a group, best first, with eval transforms: herding, for example. A group that gets new
        samples is ordered together with them; others are cut from the end, as iCaRL does.
    place : path or zarr store, optional
        Where the exemplars lie; those that are there are gone on with. A folder of this process when left out.
    max_bytes : int or str, optional
        The budget; that of `max_size` raw samples when left out.
    recipe : str, Recipe, BoundRecipe or None
        How images are stored; None stores any tensor as it is, such as vectors of features.
    logits : bool
        Whether the model's logits are stored beside, as DER asks; with eval transforms, when a sample is stored.
    **options : object
        `like` : AvalancheDataset, whose transforms and `collate_fn` the buffer has until its first experience; to be
        given where exemplars of an earlier process are gone on with. `quota` : {"bytes", "counts"}, what groups share
        of the budget of bytes (counts when left out). `total_num_groups` : int, as of Avalanche's buffers that are not
        adaptive: no group has more than its part of `max_size`. `size` : (height, width) to which PIL images are scaled
        and cut. `seed` : int, of the sample (0 when left out). `ram_bytes`, `durable`, `threads` : as FieldMemory has
        them.

    Raises
    ------
    SchemaError
        If an option is unknown, or the place holds exemplars of another kind.
    """

    def __init__(
        self,
        max_size: int,
        *,
        groupby: Literal["class", "experience", "task"] | None = "class",
        selection_strategy: Any = None,
        place: "Place | None" = None,
        max_bytes: int | str | None = None,
        recipe: AnyRecipe = "jpeg",
        logits: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(whole_number(max_size, "max_size", least=1))
        known = {"like", "quota", "total_num_groups", "size", "seed", "ram_bytes", "durable", "threads"}
        if unknown := sorted(set(options) - known):
            raise SchemaError(f"MemoryBuffer has no option {unknown}; it has {sorted(known)}")
        if groupby is not None:
            choice(groupby, "groupby", ("class", "experience", "task"))
        self.groupby, self.selection_strategy, self.logits = groupby, selection_strategy, bool(logits)
        self._kind = {"groupby": groupby, "logits": self.logits}  # what a memory that is gone on with has to have
        self._size, self._seed = options.pop("size", None), options.pop("seed", 0)
        self.total_num_groups: int | None = options.pop("total_num_groups", None)
        self._is_reservoir = groupby is None and selection_strategy is None
        like = options.pop("like", None)
        if self._is_reservoir and (self.total_num_groups is not None or "quota" in options):
            raise SchemaError("a reservoir has no groups: leave quota and total_num_groups out, or give groupby=")
        policy = {"eviction": "by_priority"} if self._is_reservoir else {"quota": "counts"}
        self._memory = FieldMemory(
            place,
            max_bytes=max_bytes,
            max_exemplars=max_size,
            recipe=recipe,
            seed=self._seed if self._is_reservoir else None,
            **(policy | options),
        )
        self._form: SampleForm | None = None
        self._updates = 0
        self._attributes: dict[int, dict[str, int]] = {}  # of slots: targets and task labels
        self._built: Any = None
        self._groups: dict[int, _Group] | None = None
        self._transforms: list[Any] | None = None
        self._collate: Callable[[Any], Any] | None = None
        self._constant_tasks = False
        if like is not None:
            self._be_like(like)
        if self._memory.exists:
            self._go_on()

    def _go_on(self) -> None:
        memory = self._memory.memory
        try:
            note = memory.attrs.get(_NOTE)
            if note is None and not len(memory):  # the first update did not come to its end
                return
            if not isinstance(note, dict) or not {"groupby", "logits", "form", "updates"} <= set(note):
                raise SchemaError(f"{memory.location}: no MemoryBuffer made this memory; choose another place")
            made = {name: note[name] for name in self._kind}
            if made != self._kind:
                raise SchemaError(f"{memory.location}: made with {made}, got {self._kind}; choose another place")
            self._form = SampleForm.from_json(note["form"], memory.location)
            self._updates = whole_number(note["updates"], "updates")
        except BaseException:
            self._memory.close()
            raise

    @property
    def memory(self) -> ExemplarMemory:
        """The memory; SchemaError before the first experience makes it."""
        return self._memory.memory

    @property
    def buffer(self) -> Any:
        """Exemplars as a data set of Avalanche, of this moment: what an update evicts cannot be read of it any more."""
        if self._built is None:
            self._built = self._dataset()
        return self._built

    @buffer.setter
    def buffer(self, new_buffer: Any) -> None:
        raise AttributeError("what is replayed lies in the memory; use update_from_dataset")

    @property
    def buffer_groups(self) -> dict[int, Any]:
        """The groups that have exemplars, by class, number of the experience, or task, each with its `.buffer`."""
        if self._groups is None:
            labels = np.zeros(len(self._memory), np.int64) if self._is_reservoir else self._memory.labels
            found, counts = np.unique(labels, return_counts=True)
            shares = self._shares(dict(zip(found.tolist(), counts.tolist(), strict=True)))
            self._groups = {
                label: _Group(self.buffer.subset(np.flatnonzero(labels == label).tolist()), share)
                for label, share in shares.items()
            }
        return dict(self._groups)

    @property
    def buffer_datasets(self) -> list[Any]:
        """The groups' data sets."""
        return [group.buffer for group in self.buffer_groups.values()]

    def _shares(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Return how many exemplars each group may have, of those that it has and gets."""
        if self.total_num_groups is not None:
            return {label: min(count, self.max_size // self.total_num_groups) for label, count in counts.items()}
        return class_quotas(counts, self.max_size)

    def _dataset(self) -> Any:
        slots = self._memory.slots
        if not len(slots):
            return concat_datasets([])
        if self._transforms is None or self._form is None:
            raise SchemaError(
                "the transforms of an earlier process are not stored; give like=, a data set of the benchmark"
            )
        self._memory.decoded.prepare(slots)  # here, so that worker processes that are forked share it
        attributes = self._known(slots)
        rows = ExemplarRows(self._memory, self._form, slots, attributes["targets"])
        options = {"with_logits": self.logits, "constant_tasks": self._constant_tasks}
        return exemplar_dataset(rows, attributes, self._transforms, self._collate, **options)

    def _known(self, slots: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Return targets and task labels of all exemplars; those of an earlier process are read."""
        stored = [name for name in ("targets", TASKS) if name in self._memory.fields]
        missing = np.array([slot for slot in slots.tolist() if slot not in self._attributes], np.int64)
        for start in range(0, len(missing), _AT_ONCE) if stored else ():
            chunk = missing[start : start + _AT_ONCE]
            read = self._memory.read(chunk)
            for place, slot in enumerate(chunk.tolist()):
                self._attributes[slot] = {name: int(read[name][place]) for name in stored}
        self._attributes = {slot: self._attributes.get(slot, {}) for slot in slots.tolist()}
        known = list(self._attributes.values())
        return {
            "targets": self._memory.labels,
            **{name: np.array([one[name] for one in known], np.int64) for name in stored},
        }

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Store samples of an experience, and commit.

        Parameters
        ----------
        agent_state : strategy
            Its model makes logits and features.
        exp : DatasetExperience
            Its dataset is stored.
        """
        self.update_from_dataset(exp.dataset, agent_state)

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """Store samples of the strategy's experience, and commit; Avalanche's plugins call it so.

        Parameters
        ----------
        strategy : SupervisedTemplate
            The strategy.
        **kwargs : object
            Ignored, as Avalanche's buffers do.
        """
        self.post_adapt(strategy, strategy.experience)

    def update_from_dataset(self, new_data: Any, strategy: Any = None) -> None:
        """Store samples of a data set, and commit; when it fails, none of them is stored, and evictions stay.

        Parameters
        ----------
        new_data : AvalancheDataset
            Samples of x, y and, where the others have one, a task label.
        strategy : SupervisedTemplate, optional
            Its model makes logits and features; needed where they are.

        Raises
        ------
        SchemaError
            If samples cannot be stored by the recipe, or logits are wanted and no strategy is given.
        InvalidExemplarError
            If a sample does not look like those before it.
        ExemplarTooLargeError
            If one sample is larger than the budget.
        """
        if not len(new_data):
            return
        source, form = self._source(new_data, strategy), self._form
        self._be_like(source.data)
        try:
            if self._is_reservoir:
                self._offer(source)
            else:
                self._add(source)
            self._note()
            self._memory.commit()
        except BaseException:
            self._memory.discard()
            self._form = form
            raise
        finally:
            self._built = self._groups = None

    def _source(self, new_data: Any, strategy: Any) -> SampleSource:
        if self.logits and strategy is None:
            raise SchemaError("logits are those of a model; give the strategy, update_from_dataset(dataset, strategy)")
        return SampleSource(
            new_data,
            groupby="class" if self._is_reservoir else self.groupby,
            number=self._updates,
            form=self._form,
            size=self._size,
            strategy=strategy,
            with_logits=self.logits,
        )

    def _be_like(self, dataset: Any) -> None:
        self._transforms, self._collate = transforms_of(dataset), dataset.collate_fn
        self._constant_tasks = isinstance(getattr(getattr(dataset, TASKS, None), "data", None), ConstantSequence)

    def _note(self) -> None:
        self._updates += 1
        memory = self._memory.memory
        updates = 0 if self._is_reservoir else self._updates  # a stream counts for itself
        form = None if self._form is None else dataclasses.asdict(self._form)
        note = {**self._kind, "form": form, "updates": updates}
        self._memory.decoded.drop(memory.annotate(attrs={**memory.attrs, _NOTE: note}))

    def _offer(self, source: SampleSource) -> None:
        for start in range(0, len(source), _AT_ONCE):
            count = min(_AT_ONCE, len(source) - start)
            at = self._memory.above(count)
            if self._memory.exists:
                values = self._read(source, start + at)
                report = self._memory.offer(count, at, values, source.labels[start + at])
            else:
                report = self._memory.add(self._read(source, np.arange(count)), source.labels[:count])
            self._remember(source, np.arange(start, start + count), report.slots)

    def _add(self, source: SampleSource) -> None:
        """Store the best of each group, best first; nothing more of a group once the memory turned one down."""
        labels, priorities = source.labels, self._priorities(source)
        winners, losers = self._plan(labels, priorities)
        if self.total_num_groups is not None and len(losers):
            self._memory.evict(losers)
        given: dict[int, int] = {}  # slot -> label, of this update
        full: set[int] = set()
        while len(winners):
            chunk, winners = winners[:_AT_ONCE], winners[_AT_ONCE:]
            report = self._memory.add(self._read(source, chunk), labels[chunk], priorities[chunk])
            self._remember(source, chunk, report.slots)
            full |= set(labels[chunk][report.slots < 0].tolist())
            given |= dict(zip(report.slots.tolist(), labels[chunk].tolist(), strict=True))
            full |= {given[slot] for slot in report.evicted.tolist() if slot in given}
            winners = winners[~np.isin(labels[winners], sorted(full))]

    def _read(self, source: SampleSource, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        if not len(indices):
            specs = self._memory.fields.items()
            return {name: torch.empty((0, *spec.shape), dtype=spec.torch_dtype) for name, spec in specs}
        fields = source.read(indices)
        self._form = source.form
        return fields

    def _remember(self, source: SampleSource, indices: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        for index, slot in zip(indices[slots >= 0].tolist(), slots[slots >= 0].tolist(), strict=True):
            self._attributes[slot] = {name: int(column[index]) for name, column in source.columns.items()}

    def _plan(
        self, labels: NDArray[np.int64], priorities: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which new samples their groups' shares hold, best first, and slots of exemplars that they do not."""
        slots = self._memory.slots
        old = self._memory.memory.priorities if len(slots) else np.zeros(0)
        groups, keys = np.concatenate([self._memory.labels, labels]), np.concatenate([old, priorities])
        stays, ranks = best_of_groups(groups, keys, self._shares)
        coming = np.flatnonzero(stays[len(slots) :])
        best = np.argsort(ranks[len(slots) :][coming], kind="stable")
        return coming[best], slots[~stays[: len(slots)]]

    def _priorities(self, source: SampleSource) -> NDArray[np.float64]:
        if self.selection_strategy is None:
            return np.random.default_rng([self._seed, self._updates]).random(len(source))
        priorities = np.zeros(len(source))
        for label in np.unique(source.labels).tolist():
            indices = np.flatnonzero(source.labels == label)
            slots = self._memory.slots[self._memory.labels == label]
            data = source.data.subset(indices.tolist())
            if len(slots):
                data = data.concat(self.buffer_groups[label].buffer)
            order = self.selection_strategy.make_sorted_indices(source.strategy, data.eval())
            ranks = np.full(len(data), len(data), np.float64)  # what it leaves out comes last
            ranks[np.asarray(order, np.int64)] = np.arange(len(order))
            priorities[indices] = -ranks[: len(indices)]
            if len(slots):
                self._memory.decoded.drop(self._memory.memory.update(slots, priority=-ranks[len(indices) :]))
                self._built = self._groups = None
        return priorities

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the most exemplars; going down evicts, and a budget that was left out follows.

        Parameters
        ----------
        strategy : SupervisedTemplate
            Not needed.
        new_size : int
            The new `max_size`.
        """
        self.max_size = whole_number(new_size, "new_size", least=1)
        self._built = self._groups = None
        if self.total_num_groups is not None and len(self._memory):
            self._memory.evict(self._plan(np.zeros(0, np.int64), np.zeros(0))[1])
        self._memory.resize(max_exemplars=self.max_size)

    def close(self) -> None:
        """Commit, and let another process write."""
        self._memory.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None, "_groups": None}
