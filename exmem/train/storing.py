"""Which examples of a phase are stored: ranked, made, encoded once, and added within the budget."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError
from exmem.memory import EncodedExemplars, ExemplarMemory
from exmem.registry import Part
from exmem.selection import SELECTIONS
from exmem.tokens import Exemplar
from exmem.train.folder import RunFolder

__all__ = ["Make", "Stored", "complete_logits", "rank_examples", "store_phase", "stored_rows"]

_PARTS = 50  # in which exemplars are written anew
_FIRST_RANKS = 32  # of each class, that are made before it is asked whether they fit
Make = Callable[[NDArray[np.int64], NDArray[np.float64]], list[Exemplar]]  # rows of the data, priorities


class Stored(NamedTuple):
    """What a phase put into the memory: the slot of each row of the data."""

    slots: NDArray[np.int64]
    rows: NDArray[np.int64]


def rank_examples(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    selection: Part,
    seed: Sequence[int],
    values: NDArray[np.floating] | None,
) -> NDArray[np.int64]:
    """Return the rank of each example (N,) within its class, 0 first, by features (N, D) or values (N,)."""
    rule = SELECTIONS.make(selection.name, **selection.kwargs)
    ranks = np.empty(len(labels), np.int64)
    rng = np.random.default_rng(list(seed))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        class_values = None if values is None else values[rows]
        order = rule(len(rows), features=features[rows], values=class_values, rng=rng)
        ranks[rows[order]] = np.arange(len(rows))
    return ranks


def store_phase(
    folder: RunFolder,
    phase: int,
    memory: ExemplarMemory,
    make: Make,
    *,
    rows: NDArray[np.int64],
    ranks: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> Stored:
    """Store the best examples of a phase that the budget holds, best of each class first.

    What was decided is noted before anything changes, and what got which slot before it is committed; so a run that was
    killed anywhere here does the same again.
    """
    order = np.lexsort((rows, labels, ranks))
    rows, priorities = rows[order], -ranks[order].astype(np.float64)
    noted = folder.note(phase, "stored")
    if noted is None:
        count = _FIRST_RANKS * int(np.sum(ranks == 0))
        plan, candidates = None, memory.encode([])
        while plan is None or (len(plan.admitted) == len(candidates) < len(rows)):
            coming = slice(len(candidates), count)
            candidates = candidates.joined(memory.encode(make(rows[coming], priorities[coming])))
            plan, count = memory.plan_add(candidates), 2 * count
        admitted = rows[plan.admitted].tolist()
        noted = {"first_slot": plan.first_slot, "victims": plan.victims.tolist(), "rows": admitted, "slots": None}
        folder.save_note(phase, "stored", noted)
        chosen: EncodedExemplars | None = candidates.take(plan.admitted)
    else:
        chosen = None
    held = set(memory.slots.tolist())
    memory.evict([slot for slot in noted["victims"] if slot in held])
    if memory.next_slot == noted["first_slot"] and noted["rows"]:
        if chosen is None:
            priority_of = dict(zip(rows.tolist(), priorities.tolist(), strict=True))
            again = np.array(noted["rows"], np.int64)
            chosen = memory.encode(make(again, np.array([priority_of[row] for row in again.tolist()])))
        noted["slots"] = memory.add(chosen).slots.tolist()
        folder.save_note(phase, "stored", noted)
    elif not noted["rows"]:
        noted["slots"] = []
    memory.commit()
    return _stored(folder, phase, noted)


def complete_logits(folder: RunFolder, now: NDArray[np.float32]) -> None:
    """Give all stored exemplars the logits (N, C) of classes that they have none of yet, in place.

    What is changed is written before it is dropped: part by part, so that no more than a fiftieth gives way. Parts
    follow from the slots alone; a run that was killed between two of them comes to the same memory.
    """
    with ExemplarMemory.open(folder.memory, mode="r+") as memory:
        slots = memory.slots
        stored = memory.read(slots).extras["logits"]
        lacking = np.isnan(stored) & ~np.isnan(now)
        for part in range(_PARTS):
            chosen = lacking.any(1) & (slots % _PARTS == part) & np.isin(slots, memory.slots)  # some gave way
            if chosen.any():
                memory.update(slots[chosen], extras={"logits": np.where(lacking, now, stored)[chosen]})


def stored_rows(folder: RunFolder, phases: int) -> dict[int, int]:
    """Return the row of the data that each slot was made of, over the first phases."""
    rows: dict[int, int] = {}
    for phase in range(phases):
        noted = folder.note(phase, "stored")
        if noted is not None:
            stored = _stored(folder, phase, noted)
            rows.update(zip(stored.slots.tolist(), stored.rows.tolist(), strict=True))
    return rows


def _stored(folder: RunFolder, phase: int, noted: dict[str, list[int]]) -> Stored:
    slots, rows = np.array(noted["slots"] or [], np.int64), np.array(noted["rows"], np.int64)
    if len(slots) != len(rows):
        raise DataError(f"{folder.path}: the memory does not hold what phase {phase + 1} stored; use a new run folder")
    there = slots >= 0  # an add may turn some away
    return Stored(slots[there], rows[there])
