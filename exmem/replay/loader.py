"""Batches of exemplars at random, for a training loop: passes that follow from their number, ranks and workers."""

import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from exmem.errors import SchemaError, StaleSnapshotError
from exmem.memory import ExemplarMemory
from exmem.recipes import Restorer
from exmem.replay.augment import Augmentation
from exmem.replay.batch import ReplayBatch
from exmem.replay.handle import MemoryHandle
from exmem.replay.pipeline import Pipeline
from exmem.replay.samplers import SAMPLERS, Sampler
from exmem.store import Place
from exmem.tokens.checks import flag, mapping_of, shown, whole_number

__all__ = ["ReplayLoader", "replay_loader"]

_SET_HERE = frozenset({"dataset", "batch_size", "batch_sampler", "collate_fn", "drop_last", "sampler", "shuffle"})
_MOST_RANKS = 2**20
_Request = tuple[NDArray[np.int64], int, tuple[int, int, int]]  # slots, generation, seed of the augmentation


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Draws:
    """What is drawn, and when; see `replay_loader`."""

    batch: int
    sampler: str
    seed: int
    length: int | None
    rank: int
    ranks: int
    endless: bool
    follow: bool
    ahead: int


class ReplayLoader:
    """Batches of exemplars; made by `replay_loader`.

    Each iteration is a pass of its own, and passes differ: also after one that was left in the middle, or where the
    loader is zipped with a shorter one. Only after `load_state_dict` it goes on where that says. It is no `DataLoader`
    (one works inside), so `accelerate.prepare` hands it back as it is: its ranks have their shares already.
    """

    def __init__(self, handle: MemoryHandle, pipeline: Pipeline, draws: _Draws, options: Mapping[str, Any]) -> None:
        self._handle, self._draws = handle, draws
        self._source = _Source(handle, pipeline, follow=draws.follow)
        self._requests = _Requests()
        self._loader: DataLoader[ReplayBatch] = DataLoader(
            self._source,
            batch_size=None,
            sampler=self._requests,
            collate_fn=_as_it_is,
            **{"persistent_workers": options.get("num_workers", 0) > 0, **options},
        )
        self._next = (0, 0)  # pass and batch at which the next iteration begins
        self._now = (0, 0)  # pass and batch after the one that was taken last
        self._iteration: object = None  # which of them is the latest
        self._expected: int | None = None  # generation at which a pass that was loaded must go on
        self._pending: deque[Future[ReplayBatch]] = deque()  # batches that a thread reads ahead
        self._pins = bool(options.get("pin_memory", False))
        self._plan(0)

    def __len__(self) -> int:
        """Return the batches of a pass."""
        return math.ceil(self._per_pass() / (self._draws.batch * self._draws.ranks))

    def __iter__(self) -> Iterator[ReplayBatch]:
        number, start = self._next
        self._iteration = iteration = object()
        while True:
            self._forget_ahead()  # of an iteration before, which reads with the same memory
            self._next, self._now = (number + 1, 0), (number, start)
            self._refresh()
            requests = self._plan(number)
            if start > len(requests):
                raise SchemaError(
                    f"the state is {start} batches into a pass of {len(requests)}; it is of another loader"
                )
            for taken, batch in enumerate(self._batches(requests[start:]), start + 1):
                self._now = (number, taken)
                yield batch
                if self._iteration is not iteration:  # both would share workers and what `state_dict` tells
                    raise SchemaError("another iteration of this loader has begun; make a loader for each of the two")
            self._now = (number + 1, 0)
            if not self._draws.endless:
                return
            number, start = number + 1, 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pending": deque()}

    def _batches(self, requests: list[_Request]) -> Iterator[ReplayBatch]:
        """Read requests in worker processes, or else ahead in a thread, so that no step waits for what it replays."""
        if self._loader.num_workers or not self._draws.ahead:
            self._requests.of_pass = requests
            yield from self._loader
            return
        coming = iter(requests)
        with ThreadPoolExecutor(1, "exmem-replay") as pool:
            pending = self._pending = deque(
                pool.submit(self._read, request) for request in itertools.islice(coming, self._draws.ahead)
            )
            try:
                while pending:
                    batch = pending.popleft().result()
                    pending.extend(pool.submit(self._read, request) for request in itertools.islice(coming, 1))
                    yield batch
            finally:
                _cancel(pending)

    def _read(self, request: _Request) -> ReplayBatch:
        batch = self._source[request]
        return batch.pin_memory() if self._pins else batch

    def _forget_ahead(self) -> None:
        _cancel(self._pending)

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass that the next iteration is.

        Parameters
        ----------
        epoch : int
            Number of the pass, from 0.
        """
        self._next = self._now = (whole_number(epoch, "epoch"), 0)

    def state_dict(self) -> dict[str, int]:
        """Return where the batches that were taken end, whatever workers have read ahead."""
        number, taken = self._now
        return {"pass": number, "batches": taken, "generation": self._handle.memory.generation}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration yield the batch after those that were taken when the state was saved.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned, of a loader with the same arguments.

        Raises
        ------
        SchemaError
            If it is none.
        StaleSnapshotError
            Raised by the iteration, if the memory was changed since, in the middle of a pass: other exemplars would be
            drawn. `set_epoch` begins a pass anew.
        """
        given = mapping_of(state, "state")
        if set(given) != {"pass", "batches", "generation"}:
            raise SchemaError(f"expected a state with pass, batches and generation, got {shown(sorted(given))}")
        number, taken, generation = (whole_number(given[key], key) for key in ("pass", "batches", "generation"))
        self._next = self._now = (number, taken)
        self._expected = generation if taken else None

    def _refresh(self) -> None:
        memory, expected, self._expected = self._handle.memory, self._expected, None
        if self._draws.follow or expected is not None:
            memory.refresh()
        if expected is not None and memory.generation != expected:
            raise StaleSnapshotError(
                f"{memory.location}: the pass was left at generation {expected} of the memory, which is at "
                f"{memory.generation} now, so other exemplars would be drawn; call set_epoch to begin a pass anew"
            )

    def _per_pass(self) -> int:
        return len(self._handle.memory) if self._draws.length is None else self._draws.length

    def _plan(self, number: int) -> list[_Request]:
        """Return the requests of this rank in a pass; all ranks have as many, of as many exemplars."""
        memory, draws = self._handle.memory, self._draws
        if len(memory) == 0:
            raise SchemaError(f"{memory.location}: the memory holds no exemplar to draw; add and commit some first")
        length = math.ceil(self._per_pass() / draws.ranks) * draws.ranks
        sampler: Sampler = SAMPLERS[draws.sampler]
        drawn = sampler(memory.slots, memory.labels, length=length, seed=draws.seed, number=number)
        of_rank = drawn[draws.rank :: draws.ranks]
        chunks = [of_rank[start : start + draws.batch] for start in range(0, len(of_rank), draws.batch)]
        self._source.prepare(memory)
        return [
            (slots, memory.generation, (draws.seed, number, draws.rank + draws.ranks * index))
            for index, slots in enumerate(chunks)
        ]


class _Source(Dataset[ReplayBatch]):
    """What worker processes read with."""

    def __init__(self, handle: MemoryHandle, pipeline: Pipeline, *, follow: bool) -> None:
        self._handle, self._pipeline, self._follow = handle, pipeline, follow

    def prepare(self, memory: ExemplarMemory) -> None:
        self._pipeline.follow(memory)

    def __getitem__(self, request: _Request) -> ReplayBatch:
        slots, generation, seed = request
        batch = self._handle.read(slots, generation=generation, follow=self._follow)
        self._pipeline.follow(self._handle.memory)
        generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**62)))
        return self._pipeline(batch, generator)


class _Requests:
    """The requests of the pass that a loader is at; it knows no loader, so that one that is dropped ends at once."""

    def __init__(self) -> None:
        self.of_pass: list[_Request] = []

    def __iter__(self) -> Iterator[_Request]:
        return iter(self.of_pass)


def replay_loader(  # noqa: PLR0913 - what a loader may be asked, each with a default
    source: "ExemplarMemory | Place",
    *,
    batch: int,
    sampler: str = "uniform",
    seed: int = 0,
    length: int | None = None,
    share: tuple[int, int] = (0, 1),
    endless: bool = False,
    follow: bool = True,
    fill: str | None = None,
    augment: Augmentation | None = None,
    ahead: int = 1,
    **options: Any,
) -> ReplayLoader:
    """Load batches of exemplars at random, restored as the memory's recipe says.

    Parameters
    ----------
    source : ExemplarMemory or place
        The memory, also one that is open for writing (what is committed is drawn), a folder, or a Zarr store.
    batch : int
        Exemplars of a batch; the last one of a pass may be smaller.
    sampler : str
        A key of `SAMPLERS`: uniform, or balanced over the classes.
    seed : int
        Seed of the draws and of the augmentation. Batches are the same whatever the number of workers.
    length : int, optional
        Exemplars of one pass over all ranks; as many as the memory holds when left out.
    share : tuple of int
        (rank, ranks) of processes that train together. They draw disjoint shares of the same pass, as many batches of
        the same size each: what does not divide is drawn again by some.
    endless : bool
        Whether one pass follows the other in one iteration.
    follow : bool
        Whether each pass draws from what is committed when it begins, and another exemplar stands in for one that was
        evicted since; else from what was there when the loader was made, and such an eviction ends the pass.
    fill : str, optional
        What becomes of dropped image tokens, a key of `FILLS`; the recipe's own when left out.
    augment : Augmentation, optional
        What restored exemplars go through, before they are filled.
    ahead : int
        Batches that a thread of this process reads ahead, beside the step, where there are no worker processes; 0 reads
        each when it is asked for.
    **options : object
        More options of `DataLoader`: num_workers, pin_memory, multiprocessing_context (of a Zarr store "spawn", unless
        it says otherwise), prefetch_factor, persistent_workers, ...

    Returns
    -------
    ReplayLoader
        Yields a `ReplayBatch` at a time.

    Raises
    ------
    SchemaError
        If an option is one that the loader sets itself or out of range, the memory holds nothing to draw, or the fill
        needs places and the schema tells no grid.
    StaleSnapshotError
        Raised by the iteration, without `follow`, if exemplars of the pass were evicted.
    """
    if taken := sorted(_SET_HERE.intersection(options)):
        raise SchemaError(f"replay_loader sets {', '.join(taken)} itself; give batch=, sampler= and length= instead")
    if not isinstance(share, list | tuple) or len(share) != 2:
        raise SchemaError(f"share must be (rank, ranks), got {shown(share)}")
    ranks = whole_number(share[1], "share: ranks", least=1, most=_MOST_RANKS)
    rank = whole_number(share[0], "share: rank", most=ranks - 1)
    if augment is not None and not callable(augment):
        raise SchemaError(f"augment must be made, as by AUGMENTATIONS.make(...), got {shown(augment)}")
    whole_number(options.get("num_workers", 0), "num_workers")
    handle = MemoryHandle(source)
    pipeline = Pipeline(Restorer.of(handle.memory), fill=fill, augment=augment)
    if options.get("num_workers") and not isinstance(handle.place, str):
        options = {"multiprocessing_context": "spawn", **options}  # threads of a store's client do not survive a fork
    draws = _Draws(
        batch=whole_number(batch, "batch", least=1),
        sampler=sampler,
        seed=whole_number(seed, "seed"),
        length=None if length is None else whole_number(length, "length", least=1),
        rank=rank,
        ranks=ranks,
        endless=flag(endless, "endless"),
        follow=flag(follow, "follow"),
        ahead=whole_number(ahead, "ahead"),
    )
    return ReplayLoader(handle, pipeline, draws, options)


def _cancel(pending: "deque[Future[ReplayBatch]]") -> None:
    """Let no read begin any more, and wait for the one that has."""
    for future in pending:
        future.cancel()
    wait(pending)


def _as_it_is(batch: Any) -> Any:
    return batch
