"""Which classes come in which phase."""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError
from exmem.train.config import DataConfig, TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.scenario_names import is_scenario_file, read_phases, sizes_of

__all__ = ["Scenario", "learnt_classes", "scenario_of_run"]

_NAMED = 5  # classes that a message names


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
        return cls._dealt(np.random.default_rng(seed).permutation(num_classes).tolist(), sizes)

    @classmethod
    def _dealt(cls, order: Sequence[int], sizes: Sequence[int]) -> "Scenario":
        ends = np.cumsum(sizes).tolist()
        return cls(tuple(tuple(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)))

    @classmethod
    def of(cls, data: DataConfig, class_names: Sequence[str]) -> "Scenario":
        """Split classes as a configuration says.

        Parameters
        ----------
        data : DataConfig
            A scenario, or first classes, increments and seed; the first phase is as large as an increment when it says
            nothing.
        class_names : sequence of str, length C
            Names of the classes 0..C-1 in the data.

        Raises
        ------
        SchemaError
            If the scenario and the classes of the data do not go together; a file's are named.

        Notes
        -----
        The order of a scenario by name is that of PILOT (LAMDA-PILOT, `utils/data_manager.py`): NumPy's legacy
        generator with its seed, 1993 by default, permutes the classes in the order of the data.
        """
        if data.scenario is None:
            first = data.increments[0] if data.first_classes is None else data.first_classes
            most = min(first, len(class_names)) if data.first_classes is None else first
            seed = data.order_seed or 0
            return cls.split(len(class_names), first=most, increments=data.increments, seed=seed)
        if is_scenario_file(data.scenario):
            return cls.read(data.scenario, class_names)
        sizes = sizes_of(data.scenario, len(class_names))
        legacy = np.random.RandomState(data.order_seed)
        return cls._dealt(legacy.permutation(len(class_names)).tolist(), sizes)

    @classmethod
    def read(cls, file: str | os.PathLike[str], class_names: Sequence[str]) -> "Scenario":
        """Read a file with the names of the classes of each phase.

        Parameters
        ----------
        file : path
            YAML or JSON: `phases`, a list of lists of names, and `name` if it has one.
        class_names : sequence of str, length C
            Names of the classes 0..C-1 in the data.

        Raises
        ------
        SchemaError
            If it is no scenario, or has other classes than the data; the message names them.
        """
        phases = read_phases(os.fspath(file))
        named = [name for phase in phases for name in phase]
        twice = sorted(name for name, count in Counter(named).items() if count > 1)
        index = {name: label for label, name in enumerate(class_names)}
        for wrong, what, remedy in (
            (twice, "has classes twice", "name each once"),
            (sorted(set(named) - set(index)), "has classes that the data lacks", "correct or drop them"),
            (sorted(set(index) - set(named)), "lacks classes of the data", "add them to a phase"),
        ):
            if wrong:
                more = f" and {len(wrong) - _NAMED:,} more" if len(wrong) > _NAMED else ""
                raise SchemaError(f"{os.fspath(file)} {what}: {wrong[:_NAMED]}{more}; {remedy}")
        return cls(tuple(tuple(index[name] for name in phase) for phase in phases))

    def named(self, class_names: Sequence[str]) -> list[list[str]]:
        """Return the names of the classes of each phase.

        Parameters
        ----------
        class_names : sequence of str, length C
            Names of the classes 0..C-1.
        """
        return [[class_names[label] for label in phase] for phase in self.phases]

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


def scenario_of_run(run: RunFolder, data: DataConfig, class_names: Sequence[str]) -> Scenario:
    """Return the scenario that a run keeps in its folder, by its configuration where it is of before there was one."""
    if run.scenario_file.exists():
        return Scenario.read(run.scenario_file, class_names)
    return Scenario.of(data, class_names)
