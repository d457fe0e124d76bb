"""One sequence: a memory is made, changed at the brim, hurt, killed and opened again, and compared with its model."""

import contextlib
import dataclasses
import os
import pickle
import random
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exmem import ExemplarMemory
from exmem.errors import (
    BudgetTooSmallError,
    CarriedThroughWarning,
    ExemplarTooLargeError,
    ExmemError,
    StoreIOError,
    StoreNotFoundError,
)
from exmem.memory.maintenance import check
from tests.driver import checks, settle
from tests.driver.faults import KILLED, KINDS, WHENS, Fault, Watched, at_line, within_limit
from tests.driver.model import Model, Settings
from tests.driver.reserve import reserve_watched
from tests.driver.schemas import CASES, case_named, known
from tests.driver.sequences import Step, choose_step, exemplars_of

MOST_STEPS = 40


@dataclasses.dataclass
class Tally:
    """What happened in sequences."""

    sequences: int = 0
    operations: int = 0
    deaths: int = 0
    faults: int = 0
    refusals: int = 0
    evicting: int = 0
    failures: dict[int, str] = dataclasses.field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, mine | theirs if isinstance(mine, dict) else mine + theirs)


@dataclasses.dataclass
class State:
    """All that a process has to know to go on with a sequence."""

    model: Model
    rng: random.Random
    left: int
    durable: bool
    exists: bool = False
    unfinished: Step | None = None  # a resize or charge whose process died
    pending: Step | None = None  # what is being done when a process dies
    tally: Tally = dataclasses.field(default_factory=Tally)
    trail: list[str] = dataclasses.field(default_factory=list)
    done: bool = False
    error: str = ""


def run_sequence(seed: int, *, steps: int = MOST_STEPS, case_name: str | None = None) -> Tally:
    """Run the sequence of a seed, and say what happened; a failure is told in the tally."""
    folder = Path(tempfile.mkdtemp(prefix="exmem-driver-", dir=_fast_folder()))
    rng = random.Random(seed)
    case = case_named(case_name) if case_name else rng.choice(CASES)
    settings = Settings(
        max_bytes=known(case.name).least_bytes + rng.randint(*case.room), max_exemplars=case.max_exemplars
    )
    state = State(Model(case.name, settings), rng, rng.randint(steps // 4, steps), rng.random() < 0.15)
    try:
        while not state.done and not state.error:
            state = _in_a_process(state, folder)
            if not state.done and not state.error:
                try:
                    _after_death(state, folder / "m")
                except BaseException:
                    state.error = traceback.format_exc()
        state.tally.sequences = 1
        if state.error:
            trail = "\n".join(state.trail[-12:])
            state.tally.failures = {seed: f"case {case.name}, seed {seed}\n{trail}\n{state.error}"}
        return state.tally
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _in_a_process(state: State, folder: Path) -> State:
    """Go on with a sequence in a forked process; return the last state that it told."""
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        warnings.simplefilter("ignore", CarriedThroughWarning)
        with contextlib.suppress(BaseException), reserve_watched():
            _Process(state, folder, start).work()
        os._exit(0)
    os.close(start)
    last = state
    with os.fdopen(end, "rb") as told:
        while True:
            try:
                last = pickle.load(told)
            except EOFError:
                break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != KILLED and not last.done and not last.error:
        last.error = f"the process ended with status {status}"
    return last


def _after_death(state: State, folder: Path) -> None:
    """A process died in a step: what readers see must be a state that the step may leave."""
    step, model = state.pending, state.model
    assert step is not None
    state.tally.deaths += 1
    files = checks.folder_bytes(folder)
    most = max(model.settings.limit, step.settings.limit if step.settings else 0)
    assert files <= most, f"died in {step.kind} with {files:,} bytes of {most:,}"
    try:
        reader = ExemplarMemory.open(folder, threads=1)
    except StoreNotFoundError:
        assert step.kind == "create", f"died in {step.kind}, and there is no store any more"
        return
    with reader:
        states = settle.possible(model, step, reader.slots.tolist(), on_disk=True)
        seen = settle.matching(reader, states, f"died in {step.kind}", changed=step.changed, committed=True)
        state.exists = True
        state.model = seen.copy()
        state.model.held = dict(seen.committed)
        checks.check_reader(reader, state.model)
    if step.kind in settle.ROLLED_FORWARD and state.model.settings != step.settings:
        state.unfinished = step.without_call()
    elif step.kind != "open":
        state.unfinished = None


class _Process:
    """The part of a sequence that one process does."""

    def __init__(self, state: State, folder: Path, out: int) -> None:
        self.state, self.folder, self._out = state, folder / "m", os.fdopen(out, "wb")
        self.rng = state.rng
        self.reader: tuple[ExemplarMemory, Model] | None = None
        self.hurt = False  # whether the last step failed

    def work(self) -> None:
        state = self.state
        try:
            memory = self._open()
            while state.left > 0:
                state.left -= 1
                memory = self._turn(memory)
            self._finish(memory)
            state.done = True
        except BaseException:
            state.error = traceback.format_exc()
        self._tell(None)

    def _tell(self, pending: Step | None) -> None:
        self.state.pending = None if pending is None else pending.without_call()
        pickle.dump(self.state, self._out)
        self._out.flush()

    def _limit(self, *steps: Step) -> Callable[[], int]:
        limits = [self.state.model.settings.limit]
        limits += [step.settings.limit for step in steps if step.settings is not None]
        return lambda: max(limits)

    def _open(self) -> ExemplarMemory:
        """Open for writing, or make the memory; perhaps dying in it."""
        state, model = self.state, self.state.model
        step = Step("open" if state.exists else "create", None)
        if state.exists and state.unfinished is not None:
            step = dataclasses.replace(state.unfinished, kind="open")
        fault = None
        if self.rng.random() < 0.15 and state.left > 0:
            fault = Fault("kill", self._when_to_fail(), self.rng.choice(WHENS))
        self._tell(step)
        state.trail.append(f"{step.kind} {fault or ''}")
        options: dict[str, Any] = {"durable": state.durable, "threads": 1}
        with Watched(fault, within_limit(self.folder, self._limit(step))):
            if state.exists:
                memory = ExemplarMemory.open(self.folder, "r+", **options)
            else:
                options |= model.case.options() | {"max_bytes": model.settings.max_bytes}
                memory = ExemplarMemory.create(self.folder, **options)
        state.exists = True
        if state.unfinished is not None:
            finish = dataclasses.replace(state.unfinished, victims=None)
            states = settle.possible(model, finish, memory.slots.tolist(), on_disk=False)
            state.model = settle.matching(memory, states, f"opened after a death in {finish.kind}")
            state.model.commit()
            state.unfinished = None
        checks.check_contents(memory, state.model)
        settle.check_settings(memory, state.model.settings)
        checks.check_reads(memory, state.model, sorted(state.model.held))
        checks.check_bytes(memory, state.model, self.folder)
        return memory

    def _when_to_fail(self) -> int:
        return int(2 ** self.rng.uniform(0, 6.5)) - 1

    def _turn(self, memory: ExemplarMemory) -> ExemplarMemory:
        state, chance = self.state, self.rng.random()
        state.tally.operations += 1
        if chance < 0.05:
            return self._reopen(memory)
        if chance < 0.12:
            self._look()
            return memory
        step = choose_step(state.model, self.rng, memory)
        self._do(step, memory)
        checks.check_contents(memory, state.model)
        settle.check_settings(memory, state.model.settings)
        checks.check_bytes(memory, state.model, self.folder, hurt=self.hurt)
        slots = sorted(state.model.held)
        checks.check_reads(memory, state.model, self.rng.sample(slots, min(6, len(slots))))
        if chance > 0.9:
            checks.check_summary(memory, state.model)
            checks.check_sample(memory, state.model, self.rng.randrange(1000))
        return memory

    def _do(self, step: Step, memory: ExemplarMemory) -> None:
        state, chance, fault, line = self.state, self.rng.random(), None, None
        if chance < 0.06:
            fault = Fault("kill", self._when_to_fail(), self.rng.choice(WHENS))
        elif chance < 0.2:
            kind = self.rng.choice([kind for kind in KINDS if kind != "kill"])
            lasting = kind in {"EIO", "ENOSPC"} and self.rng.random() < 0.4
            fault = Fault(kind, self._when_to_fail(), "before" if lasting else self.rng.choice(WHENS), lasting)
        elif chance < 0.25:
            line = int(2 ** self.rng.uniform(0, 11))
        if fault is not None and fault.kind == "kill":
            self._tell(step)
        state.trail.append(f"{step}, {fault or line or 'nothing'} is to fail")
        result = None
        try:
            with Watched(fault, within_limit(self.folder, self._limit(step))) as watched:
                if line is None:
                    result = step.call(memory)
                else:
                    with at_line(line, self.rng.choice([KeyboardInterrupt, MemoryError])) as told:
                        result = step.call(memory)
        except ExmemError as error:
            if watched.hit and isinstance(error, StoreIOError):
                self._failed(step, memory)
            elif watched.hit or (line is not None and told["hit"]):
                raise
            else:
                self._refused(step, error)
        except (KeyboardInterrupt, MemoryError):
            if not watched.hit:
                assert line is not None
                assert told["hit"]
                state.trail.append(f"at {told.get('where')}")
            self._failed(step, memory)
        else:
            self._succeeded(step, memory, result)

    def _failed(self, step: Step, memory: ExemplarMemory) -> None:
        state = self.state
        state.tally.faults += 1
        self.hurt = True
        memory.plan_add([])  # recovers; and finishes a resize or charge that was begun
        states = settle.possible(state.model, step, memory.slots.tolist(), on_disk=False)
        state.model = settle.matching(memory, states, f"failed in {step.kind}", changed=step.changed)
        state.model = settle.seen_committed(self.folder, state.model)

    def _refused(self, step: Step, error: ExmemError) -> None:
        if not isinstance(error, step.refusals):
            raise error
        self.state.tally.refusals += 1
        model = self.state.model
        settings = step.settings or model.settings
        needed = model.known.least_bytes + 2 * settings.described_bytes() + 2_000
        if isinstance(error, ExemplarTooLargeError):
            largest = max(map(model.size, step.offered or step.changed.values()))
            assert 2 * largest + needed > settings.limit, f"refused {largest:,} bytes of {settings.limit:,}: {error}"
        elif isinstance(error, BudgetTooSmallError):
            assert settings.limit < 1.15 * needed, f"refused a budget of {settings.limit:,}: {error}"

    def _succeeded(self, step: Step, memory: ExemplarMemory, result: Any) -> None:
        model, self.hurt = self.state.model, False
        slots, arrivals = memory.slots.tolist(), {}
        if step.kind == "add":
            gone, arrivals, last_bytes = settle.check_added(model, step, slots)
            self._check_told(step, result, gone, arrivals)
        else:
            gone, last_bytes = settle.check_went(model, step, memory)
        if step.kind in {"resize", "charge", "weigh", "annotate", "update"}:
            assert sorted(gone) == sorted(result.tolist()), "what went is not what was told"
        self.state.model = settle.apply(model, step, gone, arrivals)
        if last_bytes:
            self.state.tally.evicting += 1
            self._check_full(step, model, memory, last_bytes)

    def _check_told(self, step: Step, report: Any, gone: set[int], arrivals: dict[int, Any]) -> None:
        """What an add tells, and what was planned of it."""
        model = self.state.model
        assert step.plan is not None, "what could not be planned was added"
        assert report.evicted.tolist() == sorted(gone)
        assert [slot for slot in report.slots.tolist() if slot >= 0] == sorted(arrivals)
        told = [step.offered[index] for index in (report.slots >= 0).nonzero()[0].tolist()]
        assert told == list(arrivals.values())
        assert min(arrivals, default=2**62) > max([model.highest, *model.held], default=-1), "a slot comes twice"
        assert report.evicted_priorities.tolist() == [model.held[slot].priority for slot in report.evicted.tolist()]
        assert step.plan.first_slot <= min(arrivals, default=2**62)

    def _check_full(self, step: Step, before: Model, memory: ExemplarMemory, last_bytes: int) -> None:
        """Something went for want of room: there must be none."""
        model = self.state.model
        if model.settings.max_exemplars is not None and len(model.held) >= model.settings.max_exemplars:
            return
        checks.check_brim(memory, model, last_bytes)
        if self.rng.random() < 0.1:
            entries = [*before.held.values(), *step.offered]
            fresh, share = _fresh_bytes(model, entries, self.folder.with_name("fresh"))
            lack = share * (fresh - model.held_bytes() - 2 * max(map(model.size, entries)))
            lack -= checks.idle_bytes(memory) + 3 * len(
                model.held
            )  # names with gaps and generations that differ compress worse than fresh ones
            assert lack <= 0.03 * model.settings.limit + checks.segment_bytes(model), (
                f"{model.held_bytes():,} bytes held, a fresh memory holds {fresh:,}, {share:.2f} of them on the disk"
            )

    def _reopen(self, memory: ExemplarMemory) -> ExemplarMemory:
        self.state.trail.append("close")
        with Watched(None, within_limit(self.folder, self._limit())):
            memory.close()
        self.state.model.commit()
        if self.rng.random() < 0.3:
            assert check(self.folder) == []
        return self._open()

    def _look(self) -> None:
        """Look with a reader that was opened some time ago, before and after it refreshes."""
        now = self.state.model
        if self.reader is None:
            self.reader = ExemplarMemory.open(self.folder, threads=1), now.copy()
        reader, then = self.reader
        self.state.trail.append("look")
        checks.check_old_snapshot(reader, then, now, self.rng)
        reader.refresh()
        checks.check_reader(reader, now, every=self.rng.random() < 0.3)
        assert reader.max_bytes == now.settings.max_bytes
        self.reader = reader, now.copy()

    def _finish(self, memory: ExemplarMemory) -> None:
        self.state.trail.append("finish")
        model = self.state.model
        with Watched(None, within_limit(self.folder, self._limit())):
            memory.close()
        model.commit()
        assert check(self.folder) == []
        with ExemplarMemory.open(self.folder, threads=1) as reader:
            checks.check_reader(reader, model)


def _fresh_bytes(model: Model, entries: list[Any], folder: Path) -> tuple[int, float]:
    """Bytes of the exemplars that a fresh memory of the same settings holds of the same adds, and the stored share."""
    settings = model.settings
    options = model.case.options() | {"max_bytes": settings.max_bytes}
    try:
        with ExemplarMemory.create(folder, durable=False, threads=1, **options) as fresh:
            for name, nbytes in settings.charges.items():
                fresh.charge(name, nbytes)
            if settings.weights:
                fresh.weigh(settings.weights)
            fresh.annotate(attrs=settings.attrs, class_names=settings.class_names)
            empty = fresh.used_bytes
            fresh.add(exemplars_of(model, entries))
            fresh.commit()
            held = int(fresh.sizes.sum())
            return held, min(1.0, (fresh.used_bytes - empty) / max(1, held))
    except (ExemplarTooLargeError, BudgetTooSmallError):  # of a larger budget
        return 0, 0.0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
