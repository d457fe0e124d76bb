"""The ledger against one sort of everything, whatever came and went before; reductions sooner or later."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exmem.budget import Quota
from exmem.selection import Candidate, Ledger
from tests.reference_eviction import eviction_order

EXEMPLARS = st.lists(
    st.builds(Candidate, st.integers(-2, 3), st.sampled_from([-1.5, 0.0, 2.0, 7.0]), st.integers(1, 50)), max_size=25
)
# Small weights whose loads are equal as floats exactly when they are equal.
QUOTAS = st.builds(
    lambda unit, weights: Quota(unit=unit, weights=weights),
    st.sampled_from(["bytes", "counts"]),
    st.dictionaries(st.integers(-2, 9), st.sampled_from([0.5, 2, 3, 7]), max_size=4),
)


def columns(found):
    return (
        np.array([one.label for one in found], np.int64),
        np.array([one.priority for one in found], np.float64),
        np.array([one.size for one in found], np.int64),
    )


@given(first=EXEMPLARS, later=EXEMPLARS, offered=EXEMPLARS, quota=QUOTAS, data=st.data())
def test_the_order_is_that_of_one_sort_whatever_came_and_went(first, later, offered, quota, data):
    ledger = Ledger(np.arange(len(first)), *columns(first))
    ledger.add(range(len(first), len(first) + len(later)), later)
    every = dict(enumerate([*first, *later]))
    gone = sorted(data.draw(st.sets(st.sampled_from(sorted(every))))) if every else []
    ledger.remove(gone, [every.pop(slot) for slot in gone])
    slots = sorted(every)
    names = [*slots, *(-1 - index for index in range(len(offered)))]
    expected = eviction_order(*columns([*(every[slot] for slot in slots), *offered]), quota)
    victims = list(ledger.victims(lambda slot: every[slot].size, offered, quota=quota))
    assert [victim for victim, _ in victims] == [names[index] for index in expected.tolist()]
    sizes = {name: one.size for name, one in zip(names, [*(every[slot] for slot in slots), *offered], strict=True)}
    assert all(size == sizes[victim] for victim, size in victims)
    again = list(ledger.victims(lambda slot: every[slot].size, offered, quota=quota))
    assert again == victims, "asking changed something"


def test_quotas_worked_by_hand():
    # Class 0: 40 + 20 bytes, class 1: 10 + 10 + 10 bytes; best first.
    sizes = np.array([40, 20, 10, 10, 10])
    ledger = Ledger(np.arange(5), np.array([0, 0, 1, 1, 1]), np.array([2.0, 1, 3, 2, 1]), sizes)

    def order(**quota):
        return [victim for victim, _ in ledger.victims(sizes.__getitem__, quota=Quota(**quota))]

    assert order() == [1, 0, 4, 3, 2]  # bytes 60:30, 40:30, 0:30
    assert order(unit="counts") == [4, 3, 1, 2, 0]  # 2:3, 2:2 (the higher label), 2:1, 1:1, 1:0
    assert order(weights={0: 3}) == [4, 3, 1, 0, 2]  # 20:30, 20:20 (the higher label), 20:10, 13.3:10, 0:10
    assert order(unit="counts", weights={1: 3}) == [1, 4, 0, 3, 2]  # 2:1, 1:1 (the higher label), 1:2/3, 0:2/3


def kept(budget, held, coming, quota):
    """What a memory of a budget holds after an add: exemplars that are (label, priority, size)."""
    sizes = [one.size for one in held]
    ledger, total = Ledger(np.arange(len(held)), *columns(held)), sum(sizes) + sum(one.size for one in coming)
    gone = set()
    for victim, size in ledger.victims(sizes.__getitem__, coming, quota=quota):
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
            Candidate(3 * phase + label, -float(rank), size)
            for (label, size), rank in zip(exemplars, ranks, strict=True)
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
    for found in (
        filled(described, budget, quota),
        kept(budget, filled(described, budget + more, quota), [], quota),
    ):
        assert set(front) <= set(found)
        assert sum(one.size for one in set(found) - set(front)) <= gap
    assert front == everything or gap < max(one.size for one in set(everything) - set(front))


def test_a_gap_that_a_large_exemplar_left_may_be_filled_later():
    quota = Quota(unit="counts")
    first = [Candidate(0, 0.0, 10), Candidate(0, -1.0, 25)]
    second = [Candidate(5, 0.0, 5), Candidate(5, -1.0, 5), Candidate(5, -2.0, 5)]
    assert kept(30, kept(30, [], first, quota), second, quota) == [first[0], *second]
    assert kept(30, [*first, *second], [], quota) == [first[0], second[0]]  # 50 - 5 - 5 - 25 bytes
