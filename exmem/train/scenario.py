"""Which classes come in which phase."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError
from exmem.train.config import DataConfig, TrainConfig

__all__ = ["Scenario", "learnt_classes"]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A class-incremental scenario.

    Parameters
    ----------
    phases : tuple of tuple of int
        Classes that come new in each phase; SchemaError if a phase is empty, there is none, or a class comes twice.
    """

    phases: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        every = [label for phase in self.phases for label in phase]
        if not self.phases or not all(self.phases):
            raise SchemaError("a scenario needs at least one phase, and each phase at least one class")
        if len(set(every)) != len(every):
            raise SchemaError("a class comes in two phases; each class must come new once")

    @classmethod
    def split(cls, num_classes: int, *, first: int, increments: Sequence[int], seed: int) -> "Scenario":
        """Deal the classes 0..C-1 out in a seeded order.

        Parameters
        ----------
        num_classes : int
            Number C of classes.
        first : int
            Classes of the first phase.
        increments : sequence of int
            Classes of the later phases; the last number repeats until no class is left, what is left at the end makes
            a smaller last phase.
        seed : int
            Seed of the class order.

        Raises
        ------
        SchemaError
            If there are fewer classes than the first phase takes, or the increments go on when no class is left.

        Examples
        --------
        >>> [len(phase) for phase in Scenario.split(10, first=4, increments=[3, 2], seed=0).phases]
        [4, 3, 2, 1]
        """
        if not 1 <= first <= num_classes:
            raise SchemaError(f"first_classes must be in 1..{num_classes} (the classes of the data), got {first}")
        sizes = [first]
        steps = [int(step) for step in increments]
        while sum(sizes) < num_classes:
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            sizes.append(min(step, num_classes - sum(sizes)))
        if len(increments) > 1 and len(sizes) - 1 < len(increments):
            raise SchemaError(
                f"increments {list(increments)} after {first} first classes need more than the {num_classes} classes"
            )
        order = np.random.default_rng(seed).permutation(num_classes).tolist()
        ends = np.cumsum(sizes).tolist()
        return cls(tuple(tuple(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)))

    @classmethod
    def of(cls, data: DataConfig, num_classes: int) -> "Scenario":
        """Split classes as a configuration says.

        Parameters
        ----------
        data : DataConfig
            First classes, increments and seed; the first phase is as large as an increment when it says nothing.
        num_classes : int
            Number of classes in the data.
        """
        first = data.increments[0] if data.first_classes is None else data.first_classes
        most = min(first, num_classes) if data.first_classes is None else first
        return cls.split(num_classes, first=most, increments=data.increments, seed=data.class_seed)

    def __len__(self) -> int:
        return len(self.phases)

    def seen(self, phase: int) -> tuple[int, ...]:
        """Return the classes seen up to a phase, in the order they came.

        Parameters
        ----------
        phase : int
            Phase from 0, itself included.
        """
        return tuple(label for classes in self.phases[: phase + 1] for label in classes)

    def rows(self, labels: NDArray[np.int64], phase: int) -> NDArray[np.int64]:
        """Find the examples whose classes come new in a phase: their indices, increasing.

        Parameters
        ----------
        labels : ndarray, shape (N,), int64
            Class of each example.
        phase : int
            Phase from 0.
        """
        return np.flatnonzero(np.isin(labels, self.phases[phase]))


def learnt_classes(config: TrainConfig, scenario: Scenario, phase: int) -> tuple[int, ...]:
    """Return the classes of the linear head after a phase: those seen when the blocks were tuned last."""
    tuned = [earlier for earlier in range(phase + 1) if config.tunes(earlier)]
    return scenario.seen(tuned[-1]) if tuned else ()
