"""The order of eviction against one sort of everything, whatever came and went before; reductions sooner or later."""

import tracemalloc
from itertools import islice
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem.memory import order as order_module
from exmem.memory.order import EvictionOrder, Offered
from exmem.memory.quota import Quota
from tests.memory.reference_eviction import eviction_order


class One(NamedTuple):
    """An exemplar as the order sees it."""

    label: int
    priority: float
    size: int


PRIORITIES = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 2.0, 7.0, np.inf])
LABELS = st.sampled_from([-(2**63), -2, -1, 0, 1, 2, 3, 2**63 - 1])
EXEMPLARS = st.lists(st.builds(One, LABELS, PRIORITIES, st.integers(1, 50)), max_size=25)
# Small weights whose loads are equal as floats exactly when they are equal.
QUOTAS = st.builds(
    lambda unit, weights: Quota(unit=unit, weights=weights),
    st.sampled_from(["bytes", "counts"]),
    st.dictionaries(st.integers(-2, 9), st.sampled_from([0.5, 2, 3, 7]), max_size=4),
)


@pytest.fixture(autouse=True, scope="module", params=[8, 16, 1024])
def block_entries(request):
    """Blocks of a few entries split and join all the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "_BLOCK", request.param)
        yield


def columns(exemplars):
    return (
        np.array([one.label for one in exemplars], np.int64),
        np.array([one.priority for one in exemplars], np.float64),
        np.array([one.size for one in exemplars], np.int64),
    )


def order_of(held, quota, *, by_class=True):
    """The order of exemplars by slot."""
    return EvictionOrder(np.array(list(held), np.int64), *columns(held.values()), quota=quota, by_class=by_class)


def drawn_slots(data, held):
    return sorted(data.draw(st.sets(st.sampled_from(sorted(held))))) if held else []


def remove(order, held, slots):
    order.remove(np.array(slots, np.int64), *columns([held.pop(slot) for slot in slots]))


def add(order, held, new):
    held |= new
    order.add(np.array(list(new), np.int64), *columns(new.values()))


def expected_victims(held, offered, quota, *, by_class=True):
    slots = sorted(held)
    names = [*slots, *(-1 - index for index in range(len(offered)))]
    labels, priorities, sizes = columns([*(held[slot] for slot in slots), *offered])
    labels = labels if by_class else np.zeros_like(labels)
    return [(names[index], sizes[index]) for index in eviction_order(labels, priorities, sizes, quota).tolist()]


def victims(order, held, offered=()):
    return list(order.victims(lambda slot: held[slot].size, Offered(*columns(offered))))


@given(EXEMPLARS, EXEMPLARS, EXEMPLARS, st.lists(QUOTAS, min_size=2, max_size=2), st.booleans(), st.data())
def test_the_order_is_that_of_one_sort_whatever_came_and_went(first, later, offered, quotas, by_class, data):
    if not by_class:  # the classes count for nothing, and so do their weights
        quotas = [Quota(unit=quota.unit) for quota in quotas]
    held = dict(enumerate(first))
    order = order_of(held, quotas[0], by_class=by_class)
    add(order, held, dict(enumerate(later, len(first))))
    # An update strikes a slot out and enters it again with another priority.
    moved = drawn_slots(data, held)
    new = {slot: held[slot]._replace(priority=data.draw(PRIORITIES)) for slot in moved}
    remove(order, held, moved)
    add(order, held, new)
    remove(order, held, drawn_slots(data, held))
    if data.draw(st.booleans()):
        order.set_quota(quotas[1])
        quotas = quotas[1:]
    expected = expected_victims(held, offered, quotas[0], by_class=by_class)
    assert victims(order, held, offered) == expected
    assert victims(order, held, offered) == expected, "asking changed something"
    assert victims(order, held) == expected_victims(held, [], quotas[0], by_class=by_class)
    remove(order, held, sorted(held))
    assert victims(order, held, offered) == expected_victims({}, offered, quotas[0], by_class=by_class)


@given(EXEMPLARS, EXEMPLARS, QUOTAS, st.integers(0, 50))
def test_asking_may_end_anywhere_and_the_order_stays_right(first, offered, quota, stop):
    held = dict(enumerate(first))
    order = order_of(held, quota)
    expected = expected_victims(held, offered, quota)
    questions = order.victims(lambda slot: held[slot].size, Offered(*columns(offered)))
    assert list(islice(questions, stop)) == expected[:stop]

    def interrupted(slot):
        raise KeyboardInterrupt

    if held:
        with pytest.raises(KeyboardInterrupt):
            list(order.victims(interrupted, Offered(*columns(offered))))
    assert victims(order, held, offered) == expected


@given(st.lists(st.tuples(st.integers(0, 6), PRIORITIES, st.integers(1, 9)), max_size=120), QUOTAS, st.integers(1, 400))
def test_a_stream_under_a_budget_always_holds_what_the_reference_keeps(arrivals, quota, budget):
    held = {}
    order = order_of(held, quota)
    for slot, (label, priority, size) in enumerate(arrivals):
        offered = [One(label, priority, size)]
        needed = sum(one.size for one in [*held.values(), *offered]) - budget
        gone, expected_gone = [], []
        for victim, freed in order.victims(lambda slot: held[slot].size, Offered(*columns(offered))):
            if needed <= sum(size for _, size in gone):
                break
            gone.append((victim, freed))
        for victim, freed in expected_victims(held, offered, quota):
            if needed <= sum(size for _, size in expected_gone):
                break
            expected_gone.append((victim, freed))
        assert gone == expected_gone
        remove(order, held, [victim for victim, _ in gone if victim >= 0])
        if (-1, size) not in gone:
            add(order, held, {slot: offered[0]})


def test_quotas_worked_by_hand():
    # Class 0: 40 + 20 bytes, class 1: 10 + 10 + 10 bytes; best first.
    sizes = np.array([40, 20, 10, 10, 10])
    labels, priorities = np.array([0, 0, 1, 1, 1]), np.array([2.0, 1, 3, 2, 1])

    def order(**quota):
        made = EvictionOrder(np.arange(5), labels, priorities, sizes, quota=Quota(**quota), by_class=True)
        return [victim for victim, _ in made.victims(sizes.__getitem__)]

    assert order() == [1, 0, 4, 3, 2]  # bytes 60:30, 40:30, 0:30
    assert order(unit="counts") == [4, 3, 1, 2, 0]  # 2:3, 2:2 (the higher label), 2:1, 1:1, 1:0
    assert order(weights={0: 3}) == [4, 3, 1, 0, 2]  # 20:30, 20:20 (the higher label), 20:10, 13.3:10, 0:10
    assert order(unit="counts", weights={1: 3}) == [1, 4, 0, 3, 2]  # 2:1, 1:1 (the higher label), 1:2/3, 0:2/3


def test_where_classes_do_not_count_the_lowest_priority_of_all_goes_and_the_newest_of_equals():
    order = order_of({0: One(5, 1.0, 9), 1: One(-7, 0.0, 1), 2: One(5, 1.0, 4)}, Quota(), by_class=False)
    offered = Offered(*columns([One(3, 1.0, 2), One(3, 0.5, 2)]))
    assert [victim for victim, _ in order.victims(lambda slot: 1, offered)] == [1, -2, -1, 2, 0]


def test_a_change_between_two_victims_is_refused():
    held = {slot: One(slot % 2, float(slot), 3) for slot in range(6)}
    order = order_of(held, Quota())
    questions = order.victims(lambda slot: 3)
    assert next(questions) == (1, 3)
    remove(order, held, [1])
    with pytest.raises(RuntimeError, match=r"call victims\(\) again"):
        next(questions)
    assert next(order.victims(lambda slot: 3)) == (0, 3)


def test_what_is_not_there_cannot_be_struck_out():
    for wrong in (One(0, 1.0, 3), One(0, 9.0, 3), One(0, -9.0, 3), One(7, 0.0, 3)):
        order = order_of({0: One(0, 0.0, 3), 2: One(0, 2.0, 3)}, Quota())
        with pytest.raises(LookupError):
            order.remove(np.array([1]), *columns([wrong]))


def test_few_exemplars_that_are_left_of_many_need_little_memory(monkeypatch):
    monkeypatch.setattr(order_module, "_BLOCK", 1024)
    count = 50_000
    slots, labels, sizes = np.arange(count), np.zeros(count, np.int64), np.ones(count, np.int64)
    priorities = np.random.default_rng(0).random(count)
    left = slots[::500]
    gone = np.delete(slots, left)
    columns_gone = gone, labels[gone], priorities[gone], sizes[gone]
    tracemalloc.start()
    try:
        order = EvictionOrder(slots, labels, priorities, sizes, quota=Quota(), by_class=True)
        many_bytes = tracemalloc.get_traced_memory()[0]
        order.remove(*columns_gone)
        few_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert many_bytes < 18 * count + 2000  # 16 bytes each, what arrays hold in reserve, and the class
    assert few_bytes < 15_000  # one block of up to 4 kB, and what Python and NumPy keep for themselves
    assert [slot for slot, _ in order.victims(lambda slot: 1)] == sorted(
        slots[::500], key=lambda slot: priorities[slot]
    )


# What a reduction leaves -------------------------------------------------------------------------------------------


def kept(budget, held, coming, quota):
    """What a memory of a budget holds after an add: exemplars that are (label, priority, size)."""
    order = order_of(dict(enumerate(held)), quota)
    total = sum(one.size for one in [*held, *coming])
    gone = set()
    for victim, size in order.victims(lambda slot: held[slot].size, Offered(*columns(coming))):
        if total <= budget:
            break
        gone.add(victim)
        total -= size
    left = [one for slot, one in enumerate(held) if slot not in gone]
    return left + [one for index, one in enumerate(coming) if -1 - index not in gone]


# Phases of new classes (3 p, 3 p + 1, 3 p + 2), each in some batches, better ranks before worse.
def phases(sizes, *, batches):
    phase = st.lists(st.tuples(st.integers(0, 2), sizes), max_size=12)
    return st.lists(st.tuples(phase, st.integers(1, batches)), max_size=4)


def batches_of(described):
    for phase, (exemplars, batches) in enumerate(described):
        ranks = [sum(label == before for before, _ in exemplars[:at]) for at, (label, _) in enumerate(exemplars)]
        coming = [
            One(3 * phase + label, -float(rank), size) for (label, size), rank in zip(exemplars, ranks, strict=True)
        ]
        for batch in range(batches):
            yield coming[batch * len(coming) // batches : (batch + 1) * len(coming) // batches]


def filled(described, budget, quota):
    held = []
    for batch in batches_of(described):
        held = kept(budget, held, batch, quota)
    return held


BUDGETS = st.integers(0, 300)


@given(phases(st.just(10), batches=3), BUDGETS, BUDGETS, BUDGETS, QUOTAS)
def test_with_equal_sizes_a_reduction_leaves_exactly_what_the_smaller_budget_left(described, budget, more, most, quota):
    fresh = filled(described, budget, quota)
    large = filled(described, budget + more + most, quota)
    assert kept(budget, large, [], quota) == fresh
    assert kept(budget, kept(budget + more, large, [], quota), [], quota) == fresh


@given(phases(st.integers(1, 50), batches=1), BUDGETS, BUDGETS)
def test_with_equal_bytes_and_whole_classes_any_sizes_give_exactly_the_same_too(described, budget, more):
    fresh = filled(described, budget, Quota())
    assert kept(budget, filled(described, budget + more, Quota()), [], Quota()) == fresh


@given(phases(st.integers(1, 50), batches=1), BUDGETS, BUDGETS, QUOTAS)
def test_with_other_quotas_the_difference_fits_into_the_gap_of_one_exemplar(described, budget, more, quota):
    everything = [one for batch in batches_of(described) for one in batch]
    front = kept(budget, everything, [], quota)
    gap = budget - sum(one.size for one in front)
    for left in (
        filled(described, budget, quota),
        kept(budget, filled(described, budget + more, quota), [], quota),
    ):
        assert set(front) <= set(left)
        assert sum(one.size for one in set(left) - set(front)) <= gap
    assert front == everything or gap < max(one.size for one in set(everything) - set(front))


def test_a_gap_that_a_large_exemplar_left_may_be_filled_later():
    quota = Quota(unit="counts")
    first = [One(0, 0.0, 10), One(0, -1.0, 25)]
    second = [One(5, 0.0, 5), One(5, -1.0, 5), One(5, -2.0, 5)]
    assert kept(30, kept(30, [], first, quota), second, quota) == [first[0], *second]
    assert kept(30, [*first, *second], [], quota) == [first[0], second[0]]  # 50 - 5 - 5 - 25 bytes
