"""The processes of a run: each computes its share of the examples, and the first one alone writes."""

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exmem.errors import DataError, ExmemError, SchemaError

__all__ = ["ALONE", "Ranks"]

_PATIENCE = datetime.timedelta(hours=24)  # of the others, while the first one stores the exemplars of a phase
_T = TypeVar("_T")


class Ranks:
    """What the processes of a run do together, by an `Accelerator`; without one, a process does all of it."""

    def __init__(self, accelerator: Any = None) -> None:
        self._accelerator = accelerator
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.index: int = 0 if accelerator is None else accelerator.process_index

    @classmethod
    def joined(cls, *, trackers: Sequence[Any] = (), folder: Path | None = None) -> "Ranks":
        """Join the processes that `accelerate launch` or `torchrun` started, if any.

        Trackers are named as accelerate names them, or are its objects; those with files keep them in the folder.
        SchemaError if one is unknown or not installed.
        """
        from accelerate import Accelerator, InitProcessGroupKwargs
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        there = {str(tracker) for tracker in get_available_trackers()}
        for name in trackers:
            if isinstance(name, str) and name not in LOGGER_TYPE_TO_CLASS:
                raise SchemaError(f"unknown tracker {name!r}; choose one of {sorted(LOGGER_TYPE_TO_CLASS)}")
            if isinstance(name, str) and name not in there:
                raise SchemaError(f"tracker {name!r} is not installed; install its package, or leave it out")
        patience = InitProcessGroupKwargs(timeout=_PATIENCE)
        return cls(Accelerator(kwargs_handlers=[patience], log_with=[*trackers] or None, project_dir=folder))

    def begin_tracking(self, values: Mapping[str, Any]) -> None:
        """Tell the trackers, if any, what is run."""
        if self._accelerator is not None and self._accelerator.log_with:
            self._accelerator.init_trackers("exmem", config=dict(values))

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Tell the trackers, if any, what was measured."""
        if self._accelerator is not None:
            self._accelerator.log(dict(values), step=step)

    def end_tracking(self) -> None:
        """Let the trackers write what they hold."""
        for tracker in () if self._accelerator is None else self._accelerator.trackers:
            tracker.finish()  # `end_training` would part the processes, too, whatever else they have to do

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    @property
    def writes_here(self) -> bool:
        """Whether this process is the first of its machine."""
        return self._accelerator is None or bool(self._accelerator.is_local_main_process)

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        return torch.device("cpu") if self._accelerator is None else self._accelerator.device

    def pieces(self, rows: NDArray[np.int64], parts: int = 1) -> list[NDArray[np.int64]]:
        """Return the share of this process in so many parts, without the empty ones."""
        every = np.array_split(rows, self.count * parts)
        return [piece for piece in every[self.index * parts : (self.index + 1) * parts] if len(piece)]

    def over(
        self,
        rows: NDArray[np.int64],
        size: int,
        compute: Callable[[Any], _T],
        advance: Callable[[int], None] | None = None,
        *,
        prepare: Callable[[Sequence[NDArray[np.int64]]], Iterable[Any]] | None = None,
    ) -> list[_T]:
        """Compute something of rows, so many at a time and shared out; all processes get all of it, in order.

        Tensors that are returned must be on the CPU where there are several processes. `compute` takes rows, or what
        `prepare`, which may be ahead, makes of each part of them.
        """
        chunks = [rows[start : start + size * self.count] for start in range(0, len(rows), size * self.count)]
        pieces = [self.pieces(chunk) for chunk in chunks]
        parts = [piece for mine in pieces for piece in mine]
        prepared = iter(parts if prepare is None else prepare(parts))
        results: list[_T] = []
        for chunk, own in zip(chunks, pieces, strict=True):
            mine = [compute(next(prepared)) for _ in own]
            results += [part for parts in self.gathered(mine) for part in parts]
            if advance is not None:
                advance(len(chunk))
        return results

    def gathered(self, value: _T) -> list[_T]:
        """Return the values of all processes, in order."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        with _together():
            every: list[_T] = gather_object([value])
        return every

    def every(self, condition: bool) -> bool:
        """Tell whether something holds in all processes."""
        return all(self.gathered(condition))

    def first(self, act: Callable[[], _T]) -> _T:
        """Have the first process do something, and return what comes of it to all; an error is raised in all of them.

        An error of another package is a DataError in the others.
        """
        if self.count == 1:
            return act()
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = act()
            except Exception as error:
                told = error if isinstance(error, ExmemError) else DataError(f"the first process failed: {error!r}")
                with _together():
                    broadcast_object_list([None, told])
                raise
        with _together():
            outcome = broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        result: _T = outcome[0]
        return result

    def part(self) -> None:
        """Leave the others, once nothing is left to do together: the threads of the exchange can abort Python's end."""
        if self._accelerator is not None:
            self._accelerator.state.destroy_process_group()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            with _together():
                self._accelerator.wait_for_everyone()

    def add_up(self, parameters: Sequence[nn.Parameter], *others: Tensor) -> list[Tensor]:
        """Add up the gradients of all processes, in place, and other values, which are returned, in one exchange."""
        if self.count == 1:
            return list(others)
        device = parameters[0].device
        reached = torch.tensor([parameter.grad is not None for parameter in parameters], device=device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        values = [value.detach().to(device, torch.float32) for value in (reached, *gradients, *others)]
        with _together():
            flat = self._accelerator.reduce(torch.cat([value.flatten() for value in values]), reduction="sum")
        parts = torch.split(flat, [value.numel() for value in values])
        sums = [part.reshape(value.shape) for part, value in zip(parts, values, strict=True)]
        anywhere = sums[0].bool().tolist()
        for parameter, gradient, has_one in zip(parameters, sums[1:], anywhere, strict=False):
            parameter.grad = gradient.to(parameter.dtype) if has_one else None
        return sums[1 + len(parameters) :]


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Say what it means that processes cannot exchange anything any longer."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"another process of this run has ended, or cannot be reached ({reason}); run the same command to go on"
        ) from error


ALONE = Ranks()
"""One process."""
