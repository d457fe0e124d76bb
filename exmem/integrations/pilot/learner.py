"""PyCIL and PILOT: a memory of bytes in the place of a learner's `_data_memory` and `_targets_memory`."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from exmem.errors import SchemaError
from exmem.integrations.pilot.exemplars import LearnerExemplars

__all__ = ["ByteMemory", "byte_memory", "herded"]

_SETTINGS = ("durable", "max_bytes", "place", "ram_bytes", "recipe", "size")
_BATCH = 64  # as in both peers: sums of floats depend on it, and so does the order of herding
_WORKERS = 4  # that open files, as in both peers
_EPSILON = 1e-8

AnyClass = TypeVar("AnyClass", bound=type)


class ByteMemory:
    """Puts a memory of bytes in the place of a learner's exemplars: `class Learner(ByteMemory, BaseLearner)`.

    What the learner's own code reads and assigns as `_data_memory` and `_targets_memory` is that memory: arrays are
    decoded when they are read, and what is assigned is held from the next use on, without storing anew what is held.

    Parameters
    ----------
    args : dict
        The learner's configuration. `exmem` in it may hold `max_bytes`, `recipe` (`jpeg`; `raw` gives back every
        bit), `place` (a folder, in which `{seed}` and other keys of the configuration are filled in; one of this
        process when left out), `size` and `ram_bytes` (of images whose data are paths) and `durable`.
    *rest : object
        More arguments of the learner.
    **named : object
        More arguments of the learner.

    Raises
    ------
    SchemaError
        If a setting is unknown, nothing limits the memory, or the place holds another kind of exemplars.

    Notes
    -----
    `_memory_size`, from which BiC, FOSTER and PODNet compute what a class has, is the number of exemplars that are held
    where bytes decide. BiC draws a tenth of the mean number from every class, so there each class needs as many.
    """

    _exemplars: LearnerExemplars | None = None
    _limit: int | None = None
    _class_means: NDArray[np.float64] | None
    _fixed_memory: bool
    _known_classes: int
    _memory_per_class: int | None
    _total_classes: int
    _extract_vectors: Callable[[Any], tuple[NDArray[Any], NDArray[Any]]]
    feature_dim: int

    def __init__(self, args: dict[str, Any], *rest: Any, **named: Any) -> None:
        super().__init__(args, *rest, **named)  # type: ignore[call-arg]
        settings = dict(args.get("exmem", {}))
        if unknown := sorted(set(settings) - set(_SETTINGS)):
            raise SchemaError(f"exmem has no setting {unknown} here; it has {list(_SETTINGS)}")
        if isinstance(settings.get("place"), str):
            try:
                settings["place"] = settings["place"].format(**args)
            except (KeyError, IndexError, ValueError) as error:
                raise SchemaError(
                    f"place {settings['place']!r} is filled in with keys of the configuration, in braces; {error!r}"
                ) from error
        count = self._memory_per_class if self._fixed_memory else self._limit
        self._exemplars = LearnerExemplars(count, is_fixed=self._fixed_memory, **settings)

    @property
    def exemplars(self) -> LearnerExemplars:
        """The memory; `exemplars.field.memory` is the `ExemplarMemory`."""
        if self._exemplars is None:
            raise SchemaError("the memory is made at the end of the learner's __init__")
        return self._exemplars

    @property
    def _data_memory(self) -> NDArray[Any]:
        return np.zeros(0) if self._exemplars is None else self._exemplars.data

    @_data_memory.setter
    def _data_memory(self, values: Any) -> None:
        self._assign("data", values)

    @property
    def _targets_memory(self) -> NDArray[Any]:
        return np.zeros(0) if self._exemplars is None else self._exemplars.targets

    @_targets_memory.setter
    def _targets_memory(self, values: Any) -> None:
        self._assign("targets", values)

    def _assign(self, name: str, values: Any) -> None:
        if self._exemplars is not None:
            self._exemplars.assign(name, values)
        elif len(values):
            self.exemplars.assign(name, values)  # which says what is wrong; both peers assign nothing but [] so early

    @property
    def _memory_size(self) -> int | None:
        if self._exemplars is None or not self._exemplars.by_bytes or not len(self._exemplars):
            return self._limit
        return len(self._exemplars) if self._limit is None else min(self._limit, len(self._exemplars))

    @_memory_size.setter
    def _memory_size(self, count: int | None) -> None:
        self._limit = count
        if self._exemplars is not None and count is not None and not self._fixed_memory:
            self._exemplars.allow(count)

    @property
    def exemplar_size(self) -> int:
        """Exemplars held."""
        self.exemplars.settle()
        return len(self.exemplars)

    @property
    def samples_per_class(self) -> int:
        """The most exemplars of a class; where bytes alone decide, more than its share of them can hold."""
        if self._total_classes == 0:
            raise SchemaError("expected a learner that has classes; call incremental_train first")
        if self._fixed_memory and self._memory_per_class is not None:
            return self._memory_per_class
        if not self._fixed_memory and self._limit is not None:
            return self._limit // self._total_classes
        return self.exemplars.most_of(self._total_classes)

    def _get_memory(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        self.exemplars.settle()
        self.exemplars.begin(self._known_classes)
        return (self.exemplars.data, self.exemplars.targets) if len(self.exemplars) else None

    def build_rehearsal_memory(self, data_manager: Any, per_class: int) -> None:
        """Hold exemplars of the classes of this phase, and fewer of those before; both peers call it after each phase.

        Parameters
        ----------
        data_manager : DataManager
            The peer's.
        per_class : int
            The most exemplars of a class.
        """
        self.exemplars.see(data_manager)
        if self._fixed_memory:
            self._construct_exemplar_unified(data_manager, per_class)
        else:
            self._reduce_exemplar(data_manager, per_class)
            self._construct_exemplar(data_manager, per_class)
        if self.exemplars.settle():  # by a method that chooses exemplars in its own way
            self._measure(data_manager, range(self._total_classes))

    def _reduce_exemplar(self, data_manager: Any, m: int) -> None:
        self._begin(data_manager)
        self.exemplars.keep_first(m, self._known_classes)
        self._class_means = np.zeros((self._total_classes, self.feature_dim))
        self._measure(data_manager, range(self._known_classes))

    def _construct_exemplar(self, data_manager: Any, m: int) -> None:
        self._begin(data_manager)
        exemplars, old = self.exemplars, range(self._known_classes)
        exemplars.drop_from(self._known_classes)
        before = [len(exemplars.slots_of(label)) for label in old]
        try:
            for label in range(self._known_classes, self._total_classes):
                self._choose(data_manager, label, m)
            exemplars.field.commit()
        except BaseException:
            exemplars.field.discard()
            raise
        fewer = [label for label in old if len(exemplars.slots_of(label)) != before[label]]
        self._measure(data_manager, [*fewer, *range(self._known_classes, self._total_classes)])

    def _construct_exemplar_unified(self, data_manager: Any, m: int) -> None:
        self._begin(data_manager)
        self._class_means = np.zeros((self._total_classes, self.feature_dim))
        self._measure(data_manager, range(self._known_classes))
        if not self.exemplars.by_bytes:
            self.exemplars.allow(m * self._total_classes)
        self._construct_exemplar(data_manager, m)

    def _begin(self, data_manager: Any) -> None:
        self.exemplars.see(data_manager)
        self.exemplars.settle()
        self.exemplars.begin(self._known_classes)

    def _choose(self, data_manager: Any, label: int, most: int) -> None:
        """Store exemplars of a class."""
        data, _, dataset = data_manager.get_dataset(
            np.arange(label, label + 1), source="train", mode="test", ret_data=True
        )
        if len(data):
            order = herded(self._unit_vectors(data_manager, dataset))
            self.exemplars.offer(label, data, itertools.islice(order, most))

    def _measure(self, data_manager: Any, labels: Any) -> None:
        """Take the mean of what is held of each class."""
        means = self._class_means
        if means is None or len(means) < self._total_classes:
            means = self._class_means = np.zeros((self._total_classes, self.feature_dim))
        for label in labels:
            held = self.exemplars.of_class(label)
            means[label] = np.nan
            if len(held[1]):
                dataset = data_manager.get_dataset([], source="train", mode="test", appendent=held)
                mean = np.mean(self._unit_vectors(data_manager, dataset), axis=0)
                means[label] = mean / np.linalg.norm(mean)

    def _unit_vectors(self, data_manager: Any, dataset: Any) -> NDArray[Any]:
        workers = _WORKERS if data_manager.use_path else 0
        vectors = self._extract_vectors(DataLoader(dataset, batch_size=_BATCH, shuffle=False, num_workers=workers))[0]
        unit: NDArray[Any] = (vectors.T / (np.linalg.norm(vectors.T, axis=0) + _EPSILON)).T
        return unit


def byte_memory(learner: AnyClass) -> AnyClass:
    """Give a learner's class a memory of bytes: the decorator of `BaseLearner`, or of one method's class.

    Parameters
    ----------
    learner : type
        `BaseLearner` or a class of it. What classes below it define themselves stays theirs.

    Returns
    -------
    type
        A class of the same name and module, which is to stand in its place.
    """
    same: Any = {name: getattr(learner, name) for name in ("__module__", "__qualname__", "__doc__")}
    made: Any = type(learner.__name__, (ByteMemory, learner), same)
    return made  # type: ignore[no-any-return]


def herded(vectors: NDArray[Any]) -> Iterator[int]:
    """Name rows in the order of herding: iCaRL (Rebuffi et al. 2017), algorithm 4.

    `exmem.selection.herding` does the same in double precision; here ties and roundings are those of the peers.
    """
    mean, left = np.mean(vectors, axis=0), np.arange(len(vectors))
    taken: Any = np.float64(0)  # the sum of no vectors, whose dtype decides in which precision the first is chosen
    for rank in range(1, len(vectors) + 1):
        gaps = mean - (vectors[left] + taken) / rank
        place = int(np.argmin(np.sqrt(np.sum(gaps**2, axis=1))))
        chosen = left[place]
        yield int(chosen)
        taken = vectors[chosen] if rank == 1 else taken + vectors[chosen]
        left = np.delete(left, place)
