"""Exemplars as a data set of Avalanche, with the transforms of another."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.classification_dataset import (
    ClassificationDataset,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from exmem.errors import SchemaError
from exmem.integrations.avalanche.samples import LOGITS, TASKS, SampleForm
from exmem.integrations.samples.fields import IMAGE, TEXT
from exmem.integrations.samples.memory import FieldMemory

__all__ = ["ExemplarRows", "exemplar_dataset", "transforms_of"]


class ExemplarRows(Dataset[tuple[Any, Any]]):
    """Exemplars as samples (x, y) before transforms; a pickle of it reopens the memory for reading."""

    def __init__(
        self, memory: FieldMemory, form: SampleForm, slots: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> None:
        self._owner: FieldMemory | None = memory  # its folder may go with it
        self._decoded, self._form = memory.decoded, form
        self._slots, self._targets = slots.tolist(), form.targets(targets)
        self._has_text = TEXT in memory.fields

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        slot, decoded = self._slots[index], self._decoded
        text = decoded.value(TEXT, slot) if self._has_text else None
        return self._form.x(decoded.value(IMAGE, slot), text), self._targets[index]

    def value(self, name: str, index: int) -> Tensor:
        """Return a field of an exemplar."""
        return self._decoded.value(name, self._slots[index])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owner": None}


class _Column:
    """A field of exemplars, read when it is asked for."""

    def __init__(self, rows: ExemplarRows, name: str) -> None:
        self._rows, self._name = rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Tensor:
        return self._rows.value(self._name, index)


def exemplar_dataset(
    rows: ExemplarRows,
    attributes: Mapping[str, NDArray[np.int64]],
    transforms: Sequence[Any],
    collate: Callable[[Any], Any] | None,
    *,
    with_logits: bool,
    constant_tasks: bool,
) -> Any:
    """Return exemplars as a data set of Avalanche, with the transforms of others, innermost first.

    It can be concatenated with data sets of the benchmark, whose task labels are a constant sequence or not.
    """
    held = [DataAttribute(attributes["targets"].tolist(), "targets")]
    if TASKS in attributes:
        tasks = attributes[TASKS].tolist()
        # Avalanche's concatenation fails on a list before a constant sequence.
        is_constant = constant_tasks and len(set(tasks)) == 1
        held.append(
            DataAttribute(ConstantSequence(tasks[0], len(tasks)) if is_constant else tasks, TASKS, use_in_getitem=True)
        )
    if with_logits:
        held.append(DataAttribute(_Column(rows, LOGITS), LOGITS, use_in_getitem=True))
    made = TaskAwareSupervisedClassificationDataset if TASKS in attributes else ClassificationDataset
    data: Any = rows
    for groups in transforms[:-1]:
        data = AvalancheDataset([data], transform_groups=copy.copy(groups))
    groups = copy.copy(transforms[-1]) if transforms else None
    return made([data], data_attributes=held, transform_groups=groups, collate_fn=collate)


def transforms_of(dataset: Any) -> list[Any]:
    """Return the groups of transforms that a data set of Avalanche applies to its samples, innermost first."""
    return _chain(dataset._flat_data)


def _chain(data: Any) -> list[Any]:
    if not hasattr(data, "_transform_groups"):
        return []
    chains = [_chain(part) for part in data._datasets]
    if any(chain != chains[0] for chain in chains[1:]):
        raise SchemaError("expected a data set with the same transforms for all samples, got parts with different ones")
    groups = data._transform_groups
    named = any(group is not None for group in groups.transform_groups.values())
    return [*(chains[0] if chains else []), *([groups] if named else [])]
