"""The ledger against one sort of everything, whatever came and went before."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exmem.selection import Candidate, Ledger
from tests.reference_eviction import eviction_order

EXEMPLARS = st.lists(
    st.builds(Candidate, st.integers(-2, 3), st.sampled_from([-1.5, 0.0, 2.0, 7.0]), st.integers(1, 50)), max_size=25
)


def columns(found):
    return (
        np.array([one.label for one in found], np.int64),
        np.array([one.priority for one in found], np.float64),
        np.array([one.size for one in found], np.int64),
    )


@given(first=EXEMPLARS, later=EXEMPLARS, offered=EXEMPLARS, data=st.data())
def test_the_order_is_that_of_one_sort_whatever_came_and_went(first, later, offered, data):
    ledger = Ledger(np.arange(len(first)), *columns(first))
    ledger.add(range(len(first), len(first) + len(later)), later)
    every = dict(enumerate([*first, *later]))
    gone = sorted(data.draw(st.sets(st.sampled_from(sorted(every))))) if every else []
    ledger.remove(gone, [every.pop(slot) for slot in gone])
    slots = sorted(every)
    names = [*slots, *(-1 - index for index in range(len(offered)))]
    expected = eviction_order(*columns([*(every[slot] for slot in slots), *offered]))
    victims = list(ledger.victims(lambda slot: every[slot].size, offered))
    assert [victim for victim, _ in victims] == [names[index] for index in expected.tolist()]
    sizes = {name: one.size for name, one in zip(names, [*(every[slot] for slot in slots), *offered], strict=True)}
    assert all(size == sizes[victim] for victim, size in victims)
    again = list(ledger.victims(lambda slot: every[slot].size, offered))
    assert again == victims, "asking changed something"
