"""Online streams: thousands of small adds into a reservoir under a budget of bytes, with exemplars of unequal size."""

import json

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import SchemaError
from exmem.planning import AddReport
from exmem.selection import Candidate, Ledger
from exmem.stream import StreamReservoir

SCHEMA = Schema({"features": TokenSpec(positions=4, shape=(64,), dtype="float16", codec="raw")})


def arrival(index):
    tokens = 1 + index % 4  # unequal sizes: one to four tokens
    values = np.full((tokens, 64), index % 1000, np.float16)
    return Exemplar({"features": TokenSet(np.arange(tokens), values)}, label=index % 7)


def create(folder):
    options = {"max_bytes": "60kB", "eviction": "by_priority", "durable": False, "threads": 1}
    return ExemplarMemory.create(folder, schema=SCHEMA, **options)


def test_a_stream_leaves_exactly_the_arrivals_above_a_threshold_that_only_rises(tmp_path):
    held, keys = {}, np.random.default_rng(3).random(2000)
    with create(tmp_path / "m") as memory:
        reservoir = StreamReservoir(memory, seed=3)
        for start in range(0, 2000, 2):
            report = reservoir.add([arrival(start), arrival(start + 1)])
            for slot in report.evicted.tolist():
                del held[slot]
            held |= {slot: start + at for at, slot in enumerate(report.slots.tolist()) if slot >= 0}
            assert {index for index in range(start + 2) if keys[index] > reservoir._threshold} == set(held.values())
            if start % 500 == 0:
                memory.commit()
                state = json.loads(json.dumps(reservoir.state_dict()))
                reservoir = StreamReservoir(memory, seed=99)
                reservoir.load_state_dict(state)
        assert reservoir.seen == 2000
    assert 50 < len(held) < 500
    memory = ExemplarMemory.open(tmp_path / "m")
    assert memory.eviction == "by_priority"
    assert memory.slots.tolist() == sorted(held)
    values = memory.read(memory.slots).tokens["features"].values[:, 0, 0]
    np.testing.assert_array_equal(values, [held[slot] % 1000 for slot in memory.slots.tolist()])


class Weighed:
    """What the reservoir needs of a memory, for exemplars that are numbers of bytes: fast enough for statistics."""

    eviction = "by_priority"

    def __init__(self, budget):
        self.budget, self.held = budget, {}
        self.ledger = Ledger(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
        self.next = 0

    def add(self, new):
        offered = [Candidate(0, one.priority, one.label) for one in new]
        total = sum(one.size for one in [*self.held.values(), *offered])
        gone = []
        for victim, size in self.ledger.victims(lambda slot: self.held[slot].size, offered):
            if total <= self.budget:
                break
            gone.append(victim)
            total -= size
        evicted = sorted(slot for slot in gone if slot >= 0)
        candidates = [self.held.pop(slot) for slot in evicted]
        self.ledger.remove(evicted, candidates)
        slots = np.full(len(new), -1, np.int64)
        for index, one in enumerate(offered):
            if -1 - index not in gone:
                slots[index] = self.next
                self.held[self.next] = one
                self.ledger.add([self.next], [one])
                self.next += 1
        priorities = np.array([one.priority for one in candidates], np.float64)
        return AddReport(slots, np.array(evicted, np.int64), priorities, 0)


def stream(seed, arrivals, budget):
    """Which arrivals are held at the end; sizes alternate between 1 and 4."""
    reservoir, at = StreamReservoir(Weighed(budget), seed=seed), {}
    none = {"features": TokenSet([], np.zeros((0, 64), np.float16))}
    for index in range(arrivals):
        report = reservoir.add([Exemplar(none, label=4 if index % 2 else 1)])
        at |= {slot: index for slot in report.slots.tolist() if slot >= 0}
    return [at[slot] for slot in reservoir.memory.held]


def test_neither_when_an_exemplar_came_nor_hardly_its_size_decides_whether_it_is_held():
    arrivals, rounds = 60, 800
    held = np.zeros(arrivals)
    for seed in range(rounds):
        held[stream(seed, arrivals, budget=40)] += 1
    small, large = held[::2] / rounds, held[1::2] / rounds
    # Within a size: counts of a binomial. 800 draws of p = 0.25 have a deviation of 0.015; five of them.
    for share in (small, large):
        assert np.abs(share - share.mean()).max() < 0.077
        first, last = share[: len(share) // 2].mean(), share[len(share) // 2 :].mean()
        assert abs(first - last) < 0.03
    # Between sizes: an exemplar of 4 of a budget of 40 may lose up to its share of it, and some noise.
    assert -0.02 < small.mean() - large.mean() < 0.1 * small.mean() + 0.02


def test_a_memory_that_evicts_by_class_is_no_reservoir_and_an_unknown_eviction_is_refused(tmp_path):
    with (
        ExemplarMemory.create(tmp_path / "m", schema=SCHEMA, max_bytes="60kB") as memory,
        pytest.raises(SchemaError, match="by_priority"),
    ):
        StreamReservoir(memory)
    with pytest.raises(SchemaError, match="choose one of"):
        ExemplarMemory.create(tmp_path / "n", schema=SCHEMA, max_bytes="60kB", eviction="oldest")
