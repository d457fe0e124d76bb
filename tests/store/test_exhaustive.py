"""Every put and delete of every operation, failed before, in the middle, after, and killed there, from every state."""

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exmem import ExemplarMemory
from exmem.errors import StoreNotFoundError
from tests.driver import checks
from tests.driver.faults import KILLED, WHENS, Fault, Watched, in_a_child, within_limit
from tests.driver.model import Model
from tests.driver.schemas import case_named, known
from tests.driver.sequences import Step, step_commit, step_compact, step_discard
from tests.driver.trial import OPTIONS, MakeStep, Trial, add, create, perform

pytestmark = [pytest.mark.proof, pytest.mark.kills, pytest.mark.slow]


def commit(*_: object) -> Step:
    return step_commit()


def evict(part: slice) -> MakeStep:
    def make(model: Model, _: ExemplarMemory) -> Step:
        gone = sorted(model.held)[part]
        return Step("evict", lambda memory: memory.evict(gone), victims=frozenset(gone))

    return make


def evict_class(model: Model, _: ExemplarMemory) -> Step:
    gone = frozenset(slot for slot, entry in model.held.items() if entry.label == 1)
    return Step("evict_class", lambda memory: memory.evict_class(1), victims=gone)


def update(model: Model, _: ExemplarMemory) -> Step:
    slots = sorted(model.held)[::5]
    changed = {slot: dataclasses.replace(model.held[slot], priority=5.0) for slot in slots}
    return Step("update", lambda m: m.update(slots, priority=[5.0] * len(slots)), victims=None, changed=changed)


def resize(numerator: int, denominator: int) -> MakeStep:
    def make(model: Model, _: ExemplarMemory) -> Step:
        taken = model.known.least_bytes + sum(model.settings.charges.values())
        max_bytes = taken + (model.settings.max_bytes - taken) * numerator // denominator
        settings = dataclasses.replace(model.settings, max_bytes=max_bytes)
        return Step("resize", lambda memory: memory.resize(max_bytes), victims=None, settings=settings)

    return make


def charge(model: Model, _: ExemplarMemory) -> Step:
    nbytes = (model.settings.max_bytes - model.known.least_bytes) // 3
    settings = dataclasses.replace(model.settings, charges={"means": nbytes})
    return Step("charge", lambda memory: memory.charge("means", nbytes), victims=None, settings=settings)


def weigh(model: Model, _: ExemplarMemory) -> Step:
    settings = dataclasses.replace(model.settings, weights={1: 2.0, 2: 0.5})
    return Step("weigh", lambda memory: memory.weigh({1: 2.0, 2: 0.5}), victims=None, settings=settings)


def annotate(model: Model, _: ExemplarMemory) -> Step:
    settings = dataclasses.replace(model.settings, attrs={"run": "x" * 50}, class_names={1: "cat"})
    return Step(
        "annotate",
        lambda memory: memory.annotate(attrs={"run": "x" * 50}, class_names={1: "cat"}),
        victims=None,
        settings=settings,
    )


def compact(*_: object) -> Step:
    return step_compact()


def discard(*_: object) -> Step:
    return step_discard()


def close(*_: object) -> Step:
    return Step("commit", lambda memory: memory.close(), ends="commit")


FILL = [add(60), commit, add(60, first=5), commit]
COMMITTED: dict[str, list[MakeStep]] = {
    "empty": [],
    "few": [add(3), commit],
    "full": FILL,
    "holes": [*FILL, evict(slice(1, None, 3))],
    "full again": [*FILL, evict(slice(0, None, 2)), add(25, priority=1.0), commit],
    "resized": [*FILL, resize(1, 2), add(9, priority=1.0), commit],
    "charged": [*FILL, charge, add(9, priority=1.0), commit],
}
STAGED: dict[str, list[MakeStep]] = {
    "": [],
    "one staged": [add(1, priority=9.0)],  # at the brim its commit cleans a segment besides
    "few staged": [add(2)],
    "many staged": [add(9, priority=2.0), add(30)],
}
STEPS: dict[str, MakeStep] = {
    "add": add(1, priority=1.0),
    "add many": add(40, priority=3.0),
    "commit": commit,
    "discard": discard,
    "evict": evict(slice(0, None, 2)),
    "evict all": evict(slice(None)),
    "evict class": evict_class,
    "update": update,
    "resize down": resize(1, 4),
    "resize up": resize(5, 4),
    "charge": charge,
    "weigh": weigh,
    "annotate": annotate,
    "compact": compact,
    "close": close,
}
CASES = {"text": 900, "zero-extras": 8_000, "raw-pair": 9_000}
TWO_STATES = [("full", "few staged"), ("full", "one staged"), ("holes", "")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Callable[[str, str], tuple[Path, Model]]:
    """Folders of committed states, made once."""
    made: dict[tuple[str, str], tuple[Path, Model]] = {}

    def base(case_name: str, state: str) -> tuple[Path, Model]:
        if (case_name, state) not in made:
            folder = tmp_path_factory.mktemp("base") / "m"
            model = create(case_name, CASES[case_name], folder)
            with ExemplarMemory.open(folder, "r+", **OPTIONS) as memory:
                for make in COMMITTED[state]:
                    model = perform(model, memory, make)
            model.commit()
            made[case_name, state] = folder, model
        return made[case_name, state]

    return base


def numbers(request: pytest.FixtureRequest, *names: str) -> Iterator[int]:
    """Operations that fail: with `--exhaustive` every one, else a first few and some more, others for each trial."""
    if request.config.getoption("--exhaustive"):
        return itertools.count()
    offset = sum(map(ord, "".join(names)))
    return (number for number in itertools.count() if (number + offset) % 9 == 0)


@pytest.mark.parametrize("kind", ["EIO", "KeyboardInterrupt"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", COMMITTED)
def test_an_operation_that_fails_anywhere_leaves_the_state_before_or_after(tmp_path, bases, request, state, step, kind):
    for case_name, (staged, live), when in itertools.product(CASES, STAGED.items(), WHENS):
        trial = Trial(*bases(case_name, state), live, STEPS[step])
        for number in numbers(request, case_name, state, staged, step, kind, when):
            fault = Fault(kind, number, when)
            if not tell(trial.fail, tmp_path / f"{case_name}-{staged}-{when}-{number}", fault):
                break


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", COMMITTED)
def test_a_process_that_dies_anywhere_leaves_the_state_before_or_after(tmp_path, bases, request, state, step):
    for case_name, (staged, live), when in itertools.product(CASES, STAGED.items(), WHENS):
        trial = Trial(*bases(case_name, state), live, STEPS[step])
        for number in numbers(request, case_name, state, staged, step, when):
            fault = Fault("kill", number, when)
            if not tell(trial.die, tmp_path / f"{case_name}-{staged}-{when}-{number}", fault, again=False):
                break


@pytest.mark.parametrize("step", ["add many", "commit", "evict", "resize down", "charge", "compact", "update"])
@pytest.mark.parametrize(
    ("case_name", "state", "staged"),
    [
        ("raw-pair", "full", "few staged"),
        ("raw-pair", "holes", ""),
        ("raw-pair", "resized", "many staged"),
        ("text", "full", "one staged"),
    ],
)
def test_a_process_that_dies_in_each_operation_of_its_recovery_too_loses_nothing(
    tmp_path, bases, request, case_name, state, staged, step
):
    trial = Trial(*bases(case_name, state), STAGED[staged], STEPS[step])
    for number in numbers(request, case_name, state, staged, step):
        if not tell(trial.die, tmp_path / f"{number}", Fault("kill", number), again=True):
            break


def tell(act: Callable[..., bool], folder: Path, fault: Fault, **options: bool) -> bool:
    try:
        met = act(folder, fault, **options)
        shutil.rmtree(folder)  # there are very many
        return met
    except BaseException as error:
        error.add_note(f"fault: {fault} in {folder}")
        raise


@pytest.mark.parametrize("when", WHENS)
def test_a_process_that_dies_while_creating_leaves_no_store_or_a_whole_one(tmp_path, when):
    found = set()
    for number in itertools.count():
        folder = tmp_path / str(number)
        options = case_named("raw-pair").options() | {"max_bytes": 30_000}

        def act(folder: Path = folder, number: int = number, options: dict = options) -> None:
            with Watched(Fault("kill", number, when), within_limit(folder, lambda: 30_000)):
                ExemplarMemory.create(folder, **options).close()

        status = in_a_child(act)
        assert status in {0, KILLED}
        if status == 0:
            break
        try:
            ExemplarMemory.open(folder, "r+", **OPTIONS).close()
            found.add("whole")
        except StoreNotFoundError:
            ExemplarMemory.create(folder, **options).close()
            found.add("none")
        model = Model("raw-pair", create("raw-pair", 0, tmp_path / f"model{number}").settings)
        with ExemplarMemory.open(folder, "r+", **OPTIONS) as memory:
            model.settings = dataclasses.replace(model.settings, max_bytes=30_000)
            perform(model, memory, add(3))
            assert checks.folder_bytes(folder) <= 30_000
    assert "none" in found
    assert number > 5


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_a_disk_that_stays_broken_during_an_operation_costs_nothing(tmp_path, bases, kind, request):
    for (state, staged), step in itertools.product(TWO_STATES, STEPS):
        trial = Trial(*bases("zero-extras", state), STAGED[staged], STEPS[step])
        for number in numbers(request, state, staged, step, kind):
            folder = tmp_path / f"{state}-{staged}-{step}-{number}".replace(" ", "-")
            if not tell(trial.fail, folder, Fault(kind, number, "before", lasting=True)):
                break


def test_the_least_budget_is_one_that_works_and_what_costs_nothing_is_done_at_it(tmp_path):
    for name in ("text", "raw-pair", "pq", "hidden"):
        options = case_named(name).options() | {"max_bytes": known(name).least_bytes, "durable": False}
        with ExemplarMemory.create(tmp_path / name, **options) as memory:
            assert memory.add([]).slots.tolist() == []
            assert memory.charge("means", 0).tolist() == []
            assert memory.weigh({}).tolist() == []
            memory.evict([])
            memory.commit()
            memory.discard()
            memory.compact()
        with ExemplarMemory.open(tmp_path / name, "r+") as memory:
            assert len(memory) == 0
            assert memory.used_bytes <= memory.max_bytes
