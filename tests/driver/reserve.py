"""What the reserve promises, watched at every step: it is always held, and covers each step that gives bytes back."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from exmem.store.objects import BudgetedObjects
from exmem.store.sizes import noise_bytes
from exmem.store.writer import Writer

GIVE_BACK = ("clean", "evict", "change_state", "drop_segments")  # each of their steps has to fit into the reserve

_DIGITS = 16  # bytes of the document that a step may add beside


class Uncovered(BaseException):
    """A step took more than the reserve, or left less than it; no handler of the library may hide it."""


@contextlib.contextmanager
def reserve_watched(told: Callable[[str, int, int], None] = lambda *_: None) -> Iterator[None]:
    """Raise `Uncovered` when a step breaks it; `told` hears name, need and reserve of each that gives back."""
    giving_back: list[str] = []
    most = 0  # bytes of all objects at the worst instant of a step
    real_admit, real_step = BudgetedObjects._admit, Writer._step

    def admit(self: BudgetedObjects, key: str, data: bytes) -> None:
        nonlocal most
        real_admit(self, key, data)
        most = max(most, self.total_bytes + len(data))

    def step(self: Writer, *args: Any, **options: Any) -> None:
        nonlocal most
        before, reserve, segments = self.used_bytes, self.reserve(), len(self.segments)
        room = max(reserve, self.state.budget_bytes - before - reserve)  # a lone large one is moved where there is room
        most, allowed = before, max(0, self.shortage())  # what evicting left short is not for a commit to make good
        real_step(self, *args, **options)
        if giving_back:
            told(giving_back[-1], most - before, reserve)
            if most - before > room:
                raise Uncovered(f"{giving_back[-1]} took {most - before:,} bytes more, the reserve was {reserve:,}")
            # Of a segment of an old era, or of a larger target, a part may be moved first.
            allowed = self.packing_target if len(self.segments) > segments else noise_bytes(self.state.target) + _DIGITS
            if self.state.wanted is not None:  # the reserve of the larger target is there to move all into smaller ones
                allowed = self.state.target + self.packing_target
        short = self.used_bytes + self.reserve() - self.state.budget_bytes
        if short > allowed and not self.foreign_bytes:
            raise Uncovered(f"after a step {short:,} bytes of the reserve are missing, {allowed:,} may be")

    def gives_back(name: str) -> Callable[..., Any]:
        real = getattr(Writer, name)

        def method(self: Writer, *args: Any, **options: Any) -> Any:
            giving_back.append(name)
            try:
                return real(self, *args, **options)
            finally:
                giving_back.pop()

        return method

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(BudgetedObjects, "_admit", admit))
        patches.enter_context(mock.patch.object(Writer, "_step", step))
        for name in GIVE_BACK:
            patches.enter_context(mock.patch.object(Writer, name, gives_back(name)))
        yield
