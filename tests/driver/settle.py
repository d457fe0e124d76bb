"""Which states an operation may leave when it ends, when it fails and when its process dies."""

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

from exmem import ExemplarMemory
from tests.driver.checks import check_contents, check_reads, difference, room_at_the_brim, settings_of
from tests.driver.model import Entry, Model, Settings
from tests.driver.sequences import Step

ROLLED_FORWARD = {"resize", "charge"}  # begun once, they are finished by the next step or by recovery


def apply(model: Model, step: Step, victims: Collection[int], arrivals: dict[int, Entry] | None = None) -> Model:
    """Return the model after a step that went well."""
    after = model.copy()
    if step.kind == "update":  # what is staged is committed first
        after.commit()
    after.drop(victims)
    for slot, entry in step.changed.items():
        if slot in after.held:
            after.held[slot] = entry
        if slot in after.committed:
            after.committed[slot] = entry
    after.held |= arrivals or {}
    if step.settings is not None:
        after.settings = step.settings
    if step.ends == "commit":
        after.commit()
    elif step.ends == "discard":
        after.discard()
    return after


def weights_of(step: Step) -> dict[int, float] | None:
    return None if step.settings is None else step.settings.weights


def possible(model: Model, step: Step, observed: Collection[int], *, on_disk: bool) -> Iterator[Model]:
    """Give the states that a step which did not end may leave, given which slots are there.

    `on_disk`: what a reader sees; then of staged exemplars nothing is known.
    """
    there = set(observed)
    before = set(model.committed if on_disk else model.held)
    yield model
    if step.kind == "update":
        model = model.copy()
        model.commit()
        yield model
        before = set(model.held)
    if step.victims is not None:
        yield from _stages(model, step, step.victims, partly=True)
        return
    gone = before - there
    if step.kind == "update":
        yield from _parts_of_update(model, step, gone)
        return
    if step.kind == "add":
        yield _part_of_add(model, step, gone, there - before, on_disk=on_disk)
        return
    unseen = set(model.held) - set(model.committed) if on_disk else ()
    model.check_front(gone, unseen=unseen, weights=weights_of(step))
    yield from _stages(model, step, gone, partly=not gone or on_disk or step.kind not in ROLLED_FORWARD)


def _stages(model: Model, step: Step, victims: Collection[int], *, partly: bool) -> Iterator[Model]:
    if partly:
        evicted = model.copy()
        evicted.drop(victims)
        yield evicted
    yield apply(model, step, victims)


def matching(
    memory: ExemplarMemory,
    states: Iterator[Model],
    what: str,
    *,
    changed: Collection[int] = (),
    committed: bool = False,
) -> Model:
    """Return the first state that a memory is in; of slots that were `changed`, what is read tells, too."""
    reasons = []
    for state in states:
        held = state.committed if committed else state.held
        try:
            check_contents(memory, state, committed=committed)
            check_reads(memory, state, sorted(set(changed).intersection(held)), committed=committed)
            check_settings(memory, state.settings)
        except AssertionError as error:
            reasons.append(str(error).split("\n")[0])
        else:
            return state
    raise AssertionError(f"{what}: no state that is allowed: {dict.fromkeys(reasons)}")


def seen_committed(folder: Path, model: Model) -> Model:
    """After a step that failed, see whether what is held was committed before the failure."""
    found = model.copy()
    with ExemplarMemory.open(folder, threads=1) as reader:
        if set(reader.slots.tolist()) - set(model.committed):
            found.commit()
        check_contents(reader, found, committed=True)
    return found


def check_settings(memory: ExemplarMemory, settings: Settings) -> None:
    found = settings_of(memory)
    assert found == settings, f"settings {found}, expected {settings}"


def check_went(model: Model, step: Step, memory: ExemplarMemory) -> tuple[set[int], int]:
    """See that who went is the front of the order; return them and the bytes of the last."""
    gone = set(model.held) - set(memory.slots.tolist())
    if step.kind in {"evict", "evict_class"}:
        assert gone == set(step.victims or ()), f"evicted {difference(sorted(gone), sorted(step.victims or ()))}"
        return gone, 0
    if step.ends == "discard":
        gone -= set(model.held) - set(model.committed)
        assert not gone, f"{len(gone)} committed exemplars went in a {step.kind}"
        return gone, 0
    if step.kind in {"commit", "compact"}:
        assert not gone, f"{len(gone)} exemplars went in a {step.kind}"
        return gone, 0
    if step.kind == "update":  # done in parts, each by the order that the parts before it left
        excess = sum(model.size(model.held[slot]) for slot in gone) - 4 * sum(map(model.size, step.changed.values()))
        assert excess <= room_at_the_brim(model), f"{len(gone)} went in an update of {len(step.changed)}"
        return gone, 0
    last = model.check_front(gone, weights=weights_of(step))
    return gone, 0 if last is None else model.size(model.held[last])


def check_added(model: Model, step: Step, slots: Collection[int]) -> tuple[set[int], dict[int, Entry], int]:
    """See that an add took out and turned down the front of the order.

    Return the slots that went, those that came with their entries, and the bytes of the last that went or was turned
    down (0: none).
    """
    gone, came = set(model.held) - set(slots), sorted(set(slots) - set(model.held))
    down, last_bytes, left, missing = set(), 0, len(step.offered) - len(came), set(gone)
    for slot in model.order(step.offered):
        if not missing and not left:
            break
        if slot < 0:
            assert left, f"offered {-1 - slot} was taken, and {len(missing)} that go after it are gone"
            down.add(-1 - slot)
            left -= 1
            last_bytes = model.size(step.offered[-1 - slot])
        else:
            assert slot in missing, f"slot {slot} was kept, {len(missing)} and {left} offered that go after it went"
            missing.discard(slot)
            last_bytes = model.size(model.held[slot])
    admitted = [entry for index, entry in enumerate(step.offered) if index not in down]
    return gone, dict(zip(came, admitted, strict=True)), last_bytes


def _parts_of_update(model: Model, step: Step, gone: set[int]) -> Iterator[Model]:
    """Give the states of an update of which the first exemplars are changed already: it is done in parts."""
    for count in range(len(step.changed) + 1):
        part = dataclasses.replace(step, changed=dict([*step.changed.items()][:count]))
        yield apply(model, part, gone)


def _part_of_add(model: Model, step: Step, gone: set[int], came: set[int], *, on_disk: bool) -> Model:
    """Return the model after an add of which a part was done: some that go are gone, and all or nothing came."""
    if came and not on_disk:
        _, arrivals, _ = check_added(model, step, (set(model.held) - gone) | came)
        return apply(model, step, gone, arrivals)
    staged = set(model.held) - set(model.committed) if on_disk else set()
    model.check_front(gone, step.offered, unseen=staged | {-1 - index for index in range(len(step.offered))})
    return apply(model, step, gone)
