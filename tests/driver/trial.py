"""One step, once, from a given state, with one fault: what is left must be a state that the step may leave."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exmem import ExemplarMemory
from exmem.errors import ExmemError, LockedError, ReadOnlyError, StoreIOError
from exmem.memory.maintenance import check
from tests.driver import checks, settle
from tests.driver.faults import KILLED, Fault, Watched, in_a_child, within_limit
from tests.driver.model import Entry, Model, Settings
from tests.driver.schemas import known
from tests.driver.sequences import Step, adding

MakeStep = Callable[[Model, ExemplarMemory], Step]
OPTIONS: dict[str, Any] = {"durable": False, "threads": 1}


def create(case_name: str, room: int, folder: Path) -> Model:
    """Make an empty memory with some room beyond the least; return its model."""
    model = Model(case_name, Settings(max_bytes=known(case_name).least_bytes + room))
    ExemplarMemory.create(folder, max_bytes=model.settings.max_bytes, **model.case.options(), **OPTIONS).close()
    return model


def perform(model: Model, memory: ExemplarMemory, make: MakeStep) -> Model:
    """Do a step that must go well; return the model after it."""
    step = make(model, memory)
    assert step.call is not None
    step.call(memory)
    after = done(model, step, memory)
    checks.check_contents(memory, after)
    return after


def done(model: Model, step: Step, memory: ExemplarMemory) -> Model:
    """Return the model after a step that went well."""
    if step.kind == "add":
        gone, arrivals, _ = settle.check_added(model, step, memory.slots.tolist())
        return settle.apply(model, step, gone, arrivals)
    gone, _ = settle.check_went(model, step, memory)
    return settle.apply(model, step, gone)


def entries(
    model: Model, count: int, *, label: int | None = None, priority: float = 0.0, first: int = 0
) -> list[Entry]:
    """Make entries: one after the other of the pool, three classes."""
    pool = len(model.known.pool)
    return [Entry((first + number) % pool, number % 3 if label is None else label, priority) for number in range(count)]


def add(count: int, **options: Any) -> MakeStep:
    return lambda model, memory: adding(model, memory, entries(model, count, **options))


def _opened_again(memory: ExemplarMemory, folder: Path) -> ExemplarMemory:
    """Return the memory, or, where closing it got as far as giving the lock back, the one that is opened after it."""
    try:
        memory.plan_add([])
    except (ReadOnlyError, LockedError):
        memory = ExemplarMemory.open(folder, "r+", **OPTIONS)
    return memory


@dataclasses.dataclass
class Trial:
    """A state: a folder as it was committed, its model, and what is done in RAM before the step under trial."""

    base: Path
    model: Model
    live: list[MakeStep]
    make: MakeStep

    def start(self, folder: Path) -> tuple[ExemplarMemory, Model, Step]:
        shutil.copytree(self.base, folder)
        memory = ExemplarMemory.open(folder, "r+", **OPTIONS)
        model = self.model.copy()
        for make in self.live:
            model = perform(model, memory, make)
        return memory, model, self.make(model, memory)

    def fail(self, folder: Path, fault: Fault) -> bool:
        """Let the step fail in this process, and go on with the same memory; say whether the fault was met."""
        memory, model, step = self.start(folder)
        raised = False
        with Watched(fault, within_limit(folder, _most(model, step))) as watched:
            try:
                step.call(memory)
            except StoreIOError:
                assert fault.kind in {"EIO", "ENOSPC"}
                raised = True
            except (KeyboardInterrupt, MemoryError):
                raised = True
            except ExmemError as error:
                raise AssertionError(f"{step.kind} raised {error!r}") from error
        if raised:
            assert watched.hit
            memory = _opened_again(memory, folder)
            memory.plan_add([])  # recovers; and finishes a resize or charge that was begun
            states = settle.possible(model, step, memory.slots.tolist(), on_disk=False)
            model = settle.matching(memory, states, f"failed in {step.kind}")
            model = settle.seen_committed(folder, model)
        else:
            model = done(model, step, memory)
            memory = _opened_again(memory, folder)
        self._goes_on(memory, model, folder)
        return watched.hit

    def _goes_on(self, memory: ExemplarMemory, model: Model, folder: Path) -> None:
        """The memory is used further: everything reads, one more exemplar comes, and what is committed is all right."""
        checks.check_contents(memory, model)
        checks.check_reads(memory, model, sorted(model.held))
        model = perform(model, memory, add(1, priority=9.0))
        memory.commit()
        model.commit()
        checks.check_bytes(memory, model, folder)
        memory.close()
        self._sound(model, folder)

    def _sound(self, model: Model, folder: Path) -> None:
        assert check(folder) == []
        with ExemplarMemory.open(folder, threads=1) as reader:
            checks.check_reader(reader, model)
            settle.check_settings(reader, model.settings)

    def die(self, folder: Path, fault: Fault, *, again: bool) -> bool:
        """Let the process die in the step; with `again` also in each operation of the recovery, one after the other."""
        memory, model, step = self.start(folder.with_name("dry"))  # only to know the model and the plan
        memory.discard()
        memory.close()
        shutil.rmtree(folder.with_name("dry"))

        def act() -> None:
            memory, _, step = self.start(folder)
            with Watched(fault, within_limit(folder, _most(model, step))):
                step.call(memory)

        status = in_a_child(act)
        assert status in {0, KILLED}, "the child failed by itself; what it told stands above"
        if status == 0:
            return False
        model = self._seen_by_readers(model, step, folder)
        number = 0
        while again and self._dies_opening(folder, Fault("kill", number, fault.when), model, step):
            model = self._seen_by_readers(model, step, folder)
            number += 1
        memory = ExemplarMemory.open(folder, "r+", **OPTIONS)
        model = self._seen_by_readers(model, step, folder, recovered=True)
        checks.check_bytes(memory, model, folder)
        self._goes_on(memory, model, folder)
        return True

    def _seen_by_readers(self, model: Model, step: Step, folder: Path, *, recovered: bool = False) -> Model:
        """Return the state that a reader sees; after a recovery what was begun is done or undone."""
        with ExemplarMemory.open(folder, threads=1) as reader:
            states = settle.possible(model, step, reader.slots.tolist(), on_disk=not recovered)
            found = settle.matching(reader, states, f"died in {step.kind}", committed=not recovered).copy()
            if recovered:
                found.commit()
            found.held = dict(found.committed)
            checks.check_reader(reader, found)
        return found

    def _dies_opening(self, folder: Path, fault: Fault, model: Model, step: Step) -> bool:
        def act() -> None:
            with Watched(fault, within_limit(folder, _most(model, step))):
                ExemplarMemory.open(folder, "r+", **OPTIONS)

        status = in_a_child(act)
        assert status in {0, KILLED}, "the child failed by itself; what it told stands above"
        return status == KILLED


def _most(model: Model, step: Step) -> Callable[[], int]:
    most = max(model.settings.limit, step.settings.limit if step.settings else 0)
    return lambda: most
