"""Steps: one public operation each, chosen at random, with what it may do to the model."""

import contextlib
import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from exmem import AddPlan, Exemplar, ExemplarMemory, TokenBatch
from exmem.errors import BudgetTooSmallError, ExemplarTooLargeError, ExmemError
from tests.driver.model import Entry, Model, Settings

_PRIORITIES = (0.0, -0.0, 1.0, -1.0, 2.5, float("inf"), float("-inf"), 1e-300)


@dataclasses.dataclass
class Step:
    """One operation.

    `victims`: slots that go, None where a front of the eviction order does; `offered`: what an add brings; `plan`: what
    was foretold of it; `changed`: entries that an update leaves; `settings`: those after it; `ends`: whether it commits
    or discards.
    """

    kind: str
    call: Callable[[ExemplarMemory], Any] | None
    victims: frozenset[int] | None = frozenset()
    offered: list[Entry] = dataclasses.field(default_factory=list)
    plan: AddPlan | None = None
    changed: dict[int, Entry] = dataclasses.field(default_factory=dict)
    settings: Settings | None = None
    ends: str = ""
    refusals: tuple[type[ExmemError], ...] = ()

    def __str__(self) -> str:
        parts = [self.kind, f"{len(self.offered)} offered" if self.offered else "", str(self.settings or "")]
        if self.victims:
            parts.append(f"{len(self.victims)} to go")
        return ", ".join(filter(None, parts))

    def without_call(self) -> "Step":
        """What another process can be told of it."""
        return dataclasses.replace(self, call=None)


def exemplars_of(model: Model, entries: list[Entry]) -> list[Exemplar]:
    """Make exemplars of entries."""
    pool = model.known.pool
    return [
        dataclasses.replace(
            pool[entry.index],
            label=entry.label,
            priority=entry.priority,
            extras=dict(pool[entry.index].extras) | (entry.extras or {}),
        )
        for entry in entries
    ]


def as_arrays(model: Model, exemplars: list[Exemplar]) -> dict[str, Any]:
    """Make dense arrays of exemplars, with what was kept of them, as `add_batch` takes them."""
    tokens, keep = {}, {}
    for name, spec in model.case.schema().modalities.items():
        tokens[name] = np.zeros((len(exemplars), spec.positions, *spec.shape), spec.dtype)
        keep[name] = np.zeros(tokens[name].shape[:2], np.bool_)
        for row, exemplar in enumerate(exemplars):
            kept = exemplar.tokens[name]
            tokens[name][row, kept.positions], keep[name][row, kept.positions] = kept.values, True
    extras = {name: np.stack([np.asarray(one.extras[name]) for one in exemplars]) for name in exemplars[0].extras}
    labels, priorities = ([getattr(one, name) for one in exemplars] for name in ("label", "priority"))
    return {"tokens": tokens, "labels": labels, "keep": keep, "priorities": priorities, "extras": extras}


def choose_entries(model: Model, rng: random.Random, count: int) -> list[Entry]:
    """Choose what is offered: a run of the pool, or picks, or one exemplar many times; a new class now and then."""
    pool = len(model.known.pool)
    style = rng.random()
    start = rng.randrange(pool)
    if style < 0.2:
        indices = [start] * count
    elif style < 0.5:
        indices = [(start + number) % pool for number in range(count)]
    else:
        indices = [rng.randrange(pool) for _ in range(count)]
    labels = model.case.labels
    if rng.random() < 0.1:
        fresh = rng.choice([-(2**63), 2**63 - 1, rng.randrange(10**6)])
        return [Entry(index, fresh if rng.random() < 0.7 else 0, rng.choice(_PRIORITIES)) for index in indices]
    rising = rng.random() < 0.3
    return [
        Entry(index, rng.randrange(labels), float(number) if rising else round(rng.gauss(0, 1), 2))
        for number, index in enumerate(indices)
    ]


def step_add(model: Model, rng: random.Random, memory: ExemplarMemory) -> Step:
    count = 0 if rng.random() < 0.04 else 1 if rng.random() < 0.3 else rng.randint(1, model.case.offer)
    return adding(model, memory, choose_entries(model, rng, count), form=rng.choice(["list"] * 8 + ["batch", "arrays"]))


def adding(model: Model, memory: ExemplarMemory, entries: list[Entry], *, form: str = "list") -> Step:
    """Add given entries, as a list, a batch or dense arrays; what it will do is planned first."""
    given: list[Exemplar] | TokenBatch = exemplars_of(model, entries)
    refusals = (ExemplarTooLargeError,)
    step = Step("add", lambda memory: memory.add(given), victims=None, offered=entries, refusals=refusals)
    if form == "batch" and entries:
        given = TokenBatch.of(given)
    elif form == "arrays" and entries:
        arrays = as_arrays(model, given)
        step.call = lambda memory: memory.add_batch(**arrays)
    with contextlib.suppress(ExemplarTooLargeError):
        step.plan = memory.plan_add(given)
    return step


def step_evict(model: Model, rng: random.Random, _: ExemplarMemory) -> Step:
    slots = sorted(model.held)
    part = rng.choice([0.0, 0.02, 0.1, 0.5, 0.5, 0.9, 1.0])
    gone = [slot for slot in slots if rng.random() < part] or slots[:1]
    rng.shuffle(gone)
    return Step("evict", lambda memory: memory.evict(gone), victims=frozenset(gone))


def step_evict_class(model: Model, rng: random.Random, _: ExemplarMemory) -> Step:
    labels = sorted({entry.label for entry in model.held.values()})
    label = rng.choice(labels) if labels else 3
    gone = frozenset(slot for slot, entry in model.held.items() if entry.label == label)
    return Step("evict_class", lambda memory: memory.evict_class(label), victims=gone)


def step_update(model: Model, rng: random.Random, _: ExemplarMemory) -> Step:
    if not model.held:
        return step_commit(model, rng, _)
    slots = rng.sample(sorted(model.held), min(len(model.held), rng.choice([1, 1, 2, 5, 30])))
    priorities = [rng.choice(_PRIORITIES) for _ in slots]
    names = sorted(model.known.pool[0].extras)
    options: dict[str, Any] = {"priority": priorities} if rng.random() < 0.7 or not names else {}
    if names and (rng.random() < 0.5 or not options):
        name = rng.choice(names)
        shape_of = np.asarray(model.known.first_reads[0].extras[name])
        noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 2, (len(slots), *shape_of.shape))
        options["extras"] = {name: noise.astype(shape_of.dtype)}
    changed = {}
    for number, slot in enumerate(slots):
        entry = dataclasses.replace(model.held[slot], updates=model.held[slot].updates + 1)
        if "priority" in options:
            entry = dataclasses.replace(entry, priority=priorities[number])
        if "extras" in options:
            own = {name: values[number] for name, values in options["extras"].items()}
            entry = dataclasses.replace(entry, extras=(entry.extras or {}) | own)
        changed[slot] = entry
    refusals = (ExemplarTooLargeError,)
    return Step("update", lambda m: m.update(slots, **options), victims=None, changed=changed, refusals=refusals)


def step_commit(*_: object) -> Step:
    return Step("commit", lambda memory: memory.commit(), ends="commit")


def step_discard(*_: object) -> Step:
    return Step("discard", lambda memory: memory.discard(), ends="discard")


def _setting(kind: str, model: Model, call: Callable[[ExemplarMemory], Any], **values: Any) -> Step:
    settings = dataclasses.replace(model.settings, **values)
    return Step(kind, call, victims=None, settings=settings, refusals=(BudgetTooSmallError,))


def step_resize(model: Model, rng: random.Random, _: ExemplarMemory) -> Step:
    now, least = model.settings.max_bytes, model.known.least_bytes
    top = least + 2 * model.case.room[1]
    if rng.random() < 0.2 and model.case.max_exemplars is not None:
        most = rng.choice([None, 0, 1, len(model.held) // 2, model.case.max_exemplars])
        return _setting("resize", model, lambda m: m.resize(max_exemplars=most), max_exemplars=most)
    wanted = round(rng.choice([now / 4, now / 2, now * 0.9, now - rng.randrange(500), now * 2, now * 4, top, least]))
    max_bytes = max(0, min(top, wanted + rng.randrange(100)))
    return _setting("resize", model, lambda memory: memory.resize(max_bytes), max_bytes=max_bytes)


def step_charge(model: Model, rng: random.Random, _: ExemplarMemory) -> Step:
    name = rng.choice(["means", "weights", "ä"])
    nbytes = rng.choice([0, 0, 1, rng.randrange(model.case.room[0]), model.settings.max_bytes // 5])
    charges = {key: value for key, value in model.settings.charges.items() if key != name}
    charges |= {name: nbytes} if nbytes else {}
    return _setting("charge", model, lambda memory: memory.charge(name, nbytes), charges=charges)


def step_weigh(model: Model, rng: random.Random, _: ExemplarMemory) -> Step:
    if model.case.eviction != "by_class":
        return step_commit()
    labels = rng.sample(range(model.case.labels), rng.randint(0, min(model.case.labels, 12)))
    given = {label: rng.choice([0.5, 1.0, 2.0, 7.25]) for label in labels}
    weights = model.settings.weights | given
    weights = {label: weight for label, weight in weights.items() if weight != 1.0}
    return _setting("weigh", model, lambda memory: memory.weigh(given), weights=weights)


def step_annotate(model: Model, rng: random.Random, _: ExemplarMemory) -> Step:
    attrs = {"note": "x" * rng.choice([0, 10, 300]), "number": rng.randrange(10)}
    names = {label: f"class {label}" for label in range(rng.randrange(12))}
    return _setting(
        "annotate", model, lambda m: m.annotate(attrs=attrs, class_names=names), attrs=attrs, class_names=names
    )


def step_compact(*_: object) -> Step:
    return Step("compact", lambda memory: memory.compact())


def step_recreate_batch(model: Model, rng: random.Random, memory: ExemplarMemory) -> Step:
    """Offer many at once, so that the brim is reached."""
    return adding(model, memory, choose_entries(model, rng, 2 * model.case.offer))


STEPS: dict[Callable[..., Step], float] = {
    step_add: 40,
    step_recreate_batch: 8,
    step_commit: 14,
    step_discard: 5,
    step_evict: 8,
    step_evict_class: 2,
    step_update: 5,
    step_resize: 6,
    step_charge: 4,
    step_weigh: 2,
    step_annotate: 2,
    step_compact: 1.5,
}


def choose_step(model: Model, rng: random.Random, memory: ExemplarMemory) -> Step:
    """Choose the next operation."""
    [make] = rng.choices([*STEPS], weights=[*STEPS.values()])
    return make(model, rng, memory)
