"""Online streams: thousands of small adds into a reservoir under a budget of bytes, with exemplars of unequal size."""

import json

import numpy as np
import pytest

from exmem import AddReport, Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import FormatError, InvalidExemplarError, SchemaError
from exmem.memory.order import EvictionOrder, Offered
from exmem.memory.quota import Quota
from exmem.memory.reservoir import StreamReservoir, arrival_keys, raised

SCHEMA = Schema({"features": TokenSpec(positions=4, shape=(64,), dtype="float16", codec="raw")})
OPTIONS = {"durable": False, "threads": 1}


def arrival(index):
    tokens = 1 + index % 4  # unequal sizes: one to four tokens
    values = np.full((tokens, 64), index % 1000, np.float16)
    return Exemplar({"features": TokenSet(np.arange(tokens), values)}, label=index % 7)


def create(folder):
    return ExemplarMemory.create(folder, schema=SCHEMA, max_bytes="60kB", eviction="by_priority", **OPTIONS)


# Keys --------------------------------------------------------------------------------------------------------------


def splitmix64(state):
    """Vigna's splitmix64.c, one state at a time, in whole numbers of Python."""
    word = 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & word
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & word
    return state ^ (state >> 31)


def test_a_key_is_a_function_of_seed_and_number_alone():
    golden = 0x9E3779B97F4A7C15
    assert splitmix64(1234567 + golden) == 6457827717110365317  # what splitmix64.c gives first for 1234567
    for seed in (0, 3, 2**63 - 1):
        keys = arrival_keys(seed, 0, 3000)
        for number in (0, 1, 2999):
            start = splitmix64((seed + golden) % 2**64)
            bits = splitmix64((start + (number + 1) * golden) % 2**64)
            assert keys[number] == ((bits >> 12) + 0.5) / 2**52
        np.testing.assert_array_equal(keys[1000:1010], arrival_keys(seed, 1000, 10))
    assert len(arrival_keys(0, 2**62, 0)) == 0
    assert 0 < arrival_keys(0, 2**62, 1)[0] < 1


def test_keys_are_uniform_and_those_of_other_numbers_and_seeds_tell_nothing_about_them():
    count = 100_000
    keys = arrival_keys(0, 0, count)
    # A share of 1/20 of 100,000 has a deviation of 69, a correlation one of 0.0032; five of them.
    assert np.abs(np.histogram(keys, 20, (0, 1))[0] - count / 20).max() < 5 * 69
    for others in (arrival_keys(0, 1, count), arrival_keys(1, 0, count), arrival_keys(2**32, 0, count)):
        assert abs(np.corrcoef(keys, others)[0, 1]) < 0.016


# A stream ----------------------------------------------------------------------------------------------------------


def test_a_stream_leaves_exactly_the_arrivals_above_a_threshold_that_only_rises(tmp_path):
    held, keys, threshold = {}, arrival_keys(3, 0, 2000), 0.0
    memory = create(tmp_path / "m")
    reservoir = StreamReservoir(memory, seed=3)
    for start in range(0, 2000, 2):
        report = reservoir.add([arrival(start), arrival(start + 1)])
        for slot in report.evicted.tolist():
            del held[slot]
        held |= {slot: start + at for at, slot in enumerate(report.slots.tolist()) if slot >= 0}
        assert reservoir.threshold >= threshold
        threshold = reservoir.threshold
        assert {index for index in range(start + 2) if keys[index] > threshold} == set(held.values())
        if start % 500 == 0:
            memory.close()
            memory = ExemplarMemory.open(tmp_path / "m", mode="r+", **OPTIONS)
            reservoir = StreamReservoir(memory)
            assert (reservoir.seed, reservoir.seen, reservoir.threshold) == (3, start + 2, threshold)
    assert reservoir.seen == 2000
    memory.close()
    assert 50 < len(held) < 500
    memory = ExemplarMemory.open(tmp_path / "m")
    assert memory.eviction == "by_priority"
    assert memory.slots.tolist() == sorted(held)
    values = memory.read(memory.slots).tokens["features"].values[:, 0, 0]
    np.testing.assert_array_equal(values, [held[slot] % 1000 for slot in memory.slots.tolist()])
    assert StreamReservoir(memory).seen == 2000  # a reader may ask


def labels_above(threshold, seen):
    keys = arrival_keys(5, 0, seen)
    return sorted(index % 7 for index in range(seen) if keys[index] > threshold)


@pytest.mark.parametrize("ending", ["discard", "reopen"])
def test_after_a_discard_the_stream_goes_on_where_it_was_committed_without_what_was_evicted_since(tmp_path, ending):
    memory = create(tmp_path / "m")
    reservoir = StreamReservoir(memory, seed=5)
    number = 0
    for upto, committed in ((150, True), (400, True), (520, False), (520, True), (521, False), (900, True)):
        while reservoir.seen < upto:
            number = min(reservoir.seen + 9, upto)
            reservoir.add([arrival(index) for index in range(reservoir.seen, number)])
        before = reservoir.threshold
        if committed:
            memory.commit()
        elif ending == "discard":
            memory.discard()
            assert reservoir.seen < upto
        else:
            memory.discard()
            memory.close()
            memory = ExemplarMemory.open(tmp_path / "m", mode="r+", **OPTIONS)
            reservoir = StreamReservoir(memory, seed=5)
        assert reservoir.threshold <= before
        assert sorted(memory.labels.tolist()) == labels_above(reservoir.threshold, reservoir.seen)
    assert reservoir.seen == 900
    memory.close()


def test_a_smaller_budget_raises_the_threshold(tmp_path):
    with create(tmp_path / "m") as memory:
        reservoir = StreamReservoir(memory, seed=5)
        reservoir.add([arrival(index) for index in range(300)])
        memory.commit()
        assert len(memory.resize("30kB")) > 10
        assert sorted(memory.labels.tolist()) == labels_above(reservoir.threshold, 300)
        memory.resize("60kB")
        reservoir.add([arrival(index) for index in range(300, 400)])
        assert sorted(memory.labels.tolist()) == labels_above(reservoir.threshold, 400)


def test_an_add_that_fails_is_no_arrival(tmp_path):
    with create(tmp_path / "m") as memory:
        reservoir = StreamReservoir(memory)
        reservoir.add([arrival(0)])
        with pytest.raises(ValueError, match="features"):
            reservoir.add([arrival(1), Exemplar({}, label=0)])
        assert (reservoir.seen, len(memory)) == (1, 1)


def test_another_seed_another_eviction_and_a_broken_state_are_refused(tmp_path):
    with (
        ExemplarMemory.create(tmp_path / "m", schema=SCHEMA, max_bytes="60kB") as memory,
        pytest.raises(SchemaError, match="by_priority"),
    ):
        StreamReservoir(memory)
    with pytest.raises(SchemaError, match="choose one of"):
        ExemplarMemory.create(tmp_path / "n", schema=SCHEMA, max_bytes="60kB", eviction="oldest")
    with create(tmp_path / "o") as memory:
        StreamReservoir(memory, seed=4).add([arrival(0)])
        assert StreamReservoir(memory).seed == StreamReservoir(memory, seed=4).seed == 4
        with pytest.raises(SchemaError, match="began with seed 4, got 0"):
            StreamReservoir(memory, seed=0)
        for seed in (-1, 2**63):
            with pytest.raises(SchemaError, match="seed must be an integer of 0"):
                StreamReservoir(memory, seed=seed)
    right = {"seed": 4, "seen": 7, "threshold": 0.5}
    for wrong in ({}, {"seed": -1}, {"seen": 2.5}, {"seen": True}, {"threshold": "0"}, {"threshold": float("nan")}):
        memory = Weighed(10)
        memory.reservoir_state = right | wrong if wrong else {}
        with pytest.raises(FormatError, match="expected the seed"):
            StreamReservoir(memory)


def test_the_state_is_plain_json_and_small():
    memory = Weighed(10)
    StreamReservoir(memory, seed=2**63 - 1).add([Exemplar({}, label=1)] * 40)
    assert json.loads(json.dumps(memory.reservoir_state)) == memory.reservoir_state
    assert memory.reservoir_state.keys() == {"seed", "seen", "threshold"}


# Statistics --------------------------------------------------------------------------------------------------------


class Weighed:
    """What the reservoir needs of a memory, for exemplars that are numbers of bytes: fast enough for statistics."""

    eviction = "by_priority"
    location = "nowhere"

    def __init__(self, budget):
        self.budget, self.held, self.next = budget, {}, 0
        self.reservoir_state = None
        columns = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
        self.order = EvictionOrder(*columns, quota=Quota(), by_class=False)

    def _ready(self):
        pass

    def _add_to_stream(self, new, stream, arrivals):
        report = self.add(new)
        down = [one.priority for one, slot in zip(new, report.slots.tolist(), strict=True) if slot < 0]
        after = {**stream, "seen": stream["seen"] + arrivals}
        self.reservoir_state = raised(after, [*report.evicted_priorities.tolist(), *down])
        return report

    def add(self, new):
        offered = Offered(
            np.zeros(len(new), np.int64),
            np.array([one.priority for one in new], np.float64),
            np.array([one.label for one in new], np.int64),
        )
        total = sum(size for _, size in self.held.values()) + int(offered.sizes.sum())
        gone = []
        for victim, size in self.order.victims(lambda slot: self.held[slot][1], offered):
            if total <= self.budget:
                break
            gone.append(victim)
            total -= size
        evicted = np.array(sorted(slot for slot in gone if slot >= 0), np.int64)
        entries = [self.held.pop(slot) for slot in evicted.tolist()]
        priorities = np.array([priority for priority, _ in entries], np.float64)
        self.order.remove(evicted, evicted, priorities, np.array([size for _, size in entries], np.int64))
        slots = np.full(len(new), -1, np.int64)
        admitted = [index for index in range(len(new)) if -1 - index not in gone]
        slots[admitted] = np.arange(self.next, self.next + len(admitted))
        self.next += len(admitted)
        self.order.add(slots[admitted], *(column[admitted] for column in offered))
        for index in admitted:
            self.held[int(slots[index])] = float(offered.priorities[index]), int(offered.sizes[index])
        return AddReport(slots, evicted, priorities, 0)


def stream(seed, arrivals, budget):
    """Which arrivals are held at the end; sizes alternate between 1 and 4."""
    reservoir, at = StreamReservoir(Weighed(budget), seed=seed), {}
    for index in range(arrivals):
        report = reservoir.add([Exemplar({}, label=4 if index % 2 else 1)])
        at |= {slot: index for slot in report.slots.tolist() if slot >= 0}
    return [at[slot] for slot in reservoir.memory.held]


@pytest.mark.slow
def test_neither_when_an_exemplar_came_nor_hardly_its_size_decides_whether_it_is_held(in_full):
    arrivals, rounds = 60, 800 if in_full else 200
    held = np.zeros(arrivals)
    for seed in range(rounds):
        held[stream(seed, arrivals, budget=40)] += 1
    small, large = held[::2] / rounds, held[1::2] / rounds
    noise = (0.25 * 0.75 / rounds) ** 0.5  # deviation of the share of a binomial, p = 0.25: 0.015 of 800 draws
    for share in (small, large):
        assert np.abs(share - share.mean()).max() < 5 * noise
        first, last = share[: len(share) // 2].mean(), share[len(share) // 2 :].mean()
        assert abs(first - last) < 2 * noise  # of 15 arrivals each, so that this is more than five
    # Between sizes: an exemplar of 4 of a budget of 40 may lose up to its share of it, and some noise.
    assert -1.3 * noise < small.mean() - large.mean() < 0.1 * small.mean() + 1.3 * noise


def test_an_offer_makes_only_what_has_a_chance_and_holds_the_same(tmp_path):
    arrivals, made = [arrival(index) for index in range(2000)], []

    def make(start):
        return lambda above: [made.append(start + index) or arrivals[start + index] for index in above.tolist()]

    with create(tmp_path / "added") as added, create(tmp_path / "offered") as offered:
        for start in range(0, 2000, 40):
            one = StreamReservoir(added).add(arrivals[start : start + 40])
            other = StreamReservoir(offered).offer(40, make(start))
            np.testing.assert_array_equal(one.slots, other.slots)
        np.testing.assert_array_equal(added.slots, offered.slots)
        assert StreamReservoir(offered).seen == 2000
        assert len(offered) < len(made) < 1000
        with pytest.raises(InvalidExemplarError, match=r"make: expected \d+ exemplars, got 0"):
            StreamReservoir(offered).offer(4000, lambda above: [])
        assert StreamReservoir(offered).seen == 2000
