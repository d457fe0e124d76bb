"""What must be true of a memory at any time, looked at from outside and against the model."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exmem import ExemplarMemory
from exmem.errors import StaleSnapshotError
from tests.driver.model import Model, Settings, same
from tests.exemplars import folder_bytes


def settings_of(memory: ExemplarMemory) -> Settings:
    """Read the settings of a memory."""
    return Settings(
        max_bytes=memory.max_bytes,
        charges=dict(memory.charges),
        weights=dict(memory.quota.weights),
        attrs=dict(memory.attrs),
        class_names=dict(memory.class_names),
        max_exemplars=memory.max_exemplars,
    )


def check_contents(memory: ExemplarMemory, model: Model, *, committed: bool = False) -> None:
    """Slots, labels, priorities, sizes, number and membership are those of the model."""
    held = model.committed if committed else model.held
    slots = sorted(held)
    found = memory.slots.tolist()
    assert found == slots, f"slots: {difference(found, slots)}"
    assert len(memory) == len(slots)
    assert memory.labels.tolist() == [held[slot].label for slot in slots], "labels"
    priorities = np.array([held[slot].priority for slot in slots], np.float64)
    assert same(memory.priorities, priorities), "priorities"
    assert memory.sizes.tolist() == [model.size(held[slot]) for slot in slots], "sizes"
    assert memory.next_slot > max([model.highest, *held], default=-1), "a slot could be given again"
    for slot in [*slots[:2], *slots[-2:]]:
        assert slot in memory, f"slot {slot} is not in the memory"
    assert memory.next_slot not in memory
    assert -1 not in memory


def difference(found: Sequence[int], expected: Sequence[int]) -> str:
    """Say how two sets of slots differ, in short."""
    more, less = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    return f"{len(more)} too many {more[:9]}, {len(less)} missing {less[:9]}, of {len(expected)}"


def check_summary(memory: ExemplarMemory, model: Model) -> None:
    """What the summary says of each class adds up."""
    told = memory.summary()
    counts: dict[int, list[int]] = {}
    for entry in model.held.values():
        counts.setdefault(entry.label, []).append(model.size(entry))
    assert {label: own.exemplars for label, own in told.items()} == {label: len(own) for label, own in counts.items()}
    assert {label: own.payload_bytes for label, own in told.items()} == {
        label: sum(own) for label, own in counts.items()
    }
    for label in [*counts][:2]:
        slots = sorted(slot for slot, entry in model.held.items() if entry.label == label)
        assert memory.slots_of(label).tolist() == slots, "slots_of"


def check_bytes(memory: ExemplarMemory, model: Model, folder: Path, *, hurt: bool = False) -> None:
    """The files stay within the budget less charges, and the memory knows their bytes.

    `hurt`: the last step failed, and what it left is found before the next.
    """
    files, charges = folder_bytes(folder), sum(model.settings.charges.values())
    assert files <= model.settings.limit, f"{files:,} bytes of {model.settings.limit:,}"
    if hurt:
        return
    assert memory.used_bytes <= model.settings.max_bytes
    assert memory.free_bytes >= 0
    for era in memory._store.state.eras.values():
        assert era.length >= era.rows * era.given, f"arrays of {era.length} places for {era.given} x {era.rows}"
    if set(model.held) == set(model.committed):
        assert memory.used_bytes == files + charges, f"used_bytes {memory.used_bytes:,}, files {files:,} + {charges:,}"
    else:
        assert memory.used_bytes >= files + charges, f"used_bytes {memory.used_bytes:,}, files {files:,} + {charges:,}"


def check_reads(memory: ExemplarMemory, model: Model, slots: Sequence[int], *, committed: bool = False) -> None:
    """Exemplars read bit for bit as they were read first."""
    if not slots:
        return
    batch = memory.read(slots)
    assert batch.slots.tolist() == list(slots)
    assert len(batch) == len(slots)
    for row, slot in enumerate(slots):
        arrays, entry = model.expected(slot, committed=committed)
        found = batch.exemplar(row)
        assert found.label == entry.label, f"slot {slot}: label"
        assert same(np.float64(found.priority), np.float64(entry.priority)), f"slot {slot}: priority"
        read = {f"{name} positions": tokens.positions for name, tokens in found.tokens.items()}
        read |= {f"{name} values": tokens.values for name, tokens in found.tokens.items()}
        read |= {f"extra {name}": np.asarray(value) for name, value in found.extras.items()}
        assert read.keys() == arrays.keys()
        wrong = [name for name in arrays if not same(read[name], arrays[name])]
        assert not wrong, f"slot {slot}: {wrong} are not what was stored"


def check_sample(memory: ExemplarMemory, model: Model, seed: int) -> None:
    """A sample holds as many as were asked for, of those that are held, and is the same for the same seed."""
    if not model.held:
        return
    sampler = ("uniform", "balanced")[seed % 2]
    count = min(len(model.held), 1 + seed % 7)
    slots = memory.sample(count, sampler=sampler, seed=seed).slots.tolist()
    assert len(slots) == count
    assert set(slots) <= set(model.held)
    assert memory.sample(count, sampler=sampler, seed=seed).slots.tolist() == slots
    check_reads(memory, model, slots)


def check_reader(memory: ExemplarMemory, model: Model, *, every: bool = True) -> None:
    """A reader shows what is committed, and that only."""
    check_contents(memory, model, committed=True)
    slots = sorted(model.committed)
    check_reads(memory, model, slots if every else slots[:3] + slots[-3:], committed=True)


def check_old_snapshot(memory: ExemplarMemory, old: Model, now: Model, rng: random.Random) -> None:
    """A snapshot that was not refreshed reads right, or says that it is old where the exemplar was evicted."""
    slots = sorted(old.committed)
    assert memory.slots.tolist() == slots, "the snapshot moved by itself"
    for slot in rng.sample(slots, min(4, len(slots))):
        changed = now.committed.get(slot) != old.committed[slot]
        try:
            check_reads(memory, old, [slot], committed=True)
        except StaleSnapshotError:
            assert changed, f"slot {slot} is held, but a reader is told that it is gone"


def check_brim(memory: ExemplarMemory, model: Model, least_gone: int) -> None:
    """Where something had to go, there is no more room than the layout's constant.

    `least_gone`: bytes of the smallest exemplar that went or was turned down; room for less is no fault.
    """
    allowed = room_at_the_brim(model) + least_gone
    assert memory.free_bytes <= allowed, f"{memory.free_bytes:,} bytes are free where something went, {allowed:,} may"


def room_at_the_brim(model: Model) -> int:
    """The stated constant: 1/32 of the budget may be dead, one segment open, one exemplar half in."""
    largest = max(map(model.size, model.held.values()), default=0)
    return model.settings.limit // 32 + segment_bytes(model) + largest


def segment_bytes(model: Model) -> int:
    """Bytes of a segment at most: the layout's target."""
    return int(min(max(1.5 * (64 * model.settings.max_bytes) ** 0.5, 1_536), 2**18))


def idle_bytes(memory: ExemplarMemory) -> int:
    """Bytes of index entries for places that no exemplar takes: R may be up to four times off when the mean drifts."""
    writer = memory._store.writer
    assert writer is not None
    idle = 0
    for name in [*writer.segments, *writer.staged.segments]:
        info = writer.info(name)
        assert info is not None
        idle += writer.state.eras[name >> 36].rows - info.rows
    rows = writer.state.eras[writer.state.era].rows
    return 16 * len(memory._store.layout.sharded) * (idle + rows)
