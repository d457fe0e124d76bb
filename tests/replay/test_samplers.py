"""A pass is a function of seed and number, and draws equally often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem.errors import SchemaError
from exmem.replay import SAMPLERS

every = pytest.mark.parametrize("name", SAMPLERS)


def drawn(name, labels, *, length, seed=0, number=0):
    slots = 100 + 3 * np.arange(len(labels))  # names, not places
    return (SAMPLERS[name](slots, np.asarray(labels), length=length, seed=seed, number=number) - 100) // 3


@every
@given(
    labels=st.lists(st.integers(-2, 2), min_size=1, max_size=30),
    length=st.integers(0, 90),
    seed=st.integers(0, 2**31),
    number=st.integers(0, 2**31),
)
def test_a_pass_follows_from_its_seed_and_number_alone(name, labels, length, seed, number):
    first = drawn(name, labels, length=length, seed=seed, number=number)
    drawn(name, labels, length=3, seed=seed + 1, number=number + 1)
    np.testing.assert_array_equal(drawn(name, labels, length=length, seed=seed, number=number), first)
    assert first.shape == (length,)
    assert first.dtype == np.int64


@given(count=st.integers(1, 30), length=st.integers(0, 90))
def test_every_exemplar_is_drawn_equally_often_and_each_once_before_any_twice(count, length):
    order = drawn("uniform", [0] * count, length=length)
    assert np.ptp(np.bincount(order, minlength=count)) <= 1
    for start in range(0, length - count + 1, count):
        assert sorted(order[start : start + count]) == [*range(count)]


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=30), length=st.integers(0, 90))
def test_every_class_is_drawn_equally_often_and_every_exemplar_within_it(labels, length):
    labels = np.array(labels)
    order = drawn("balanced", labels, length=length)
    of_class = [int((labels[order] == label).sum()) for label in np.unique(labels)]
    assert np.ptp(of_class) <= 1
    for label in np.unique(labels):
        assert np.ptp(np.bincount(order[labels[order] == label], minlength=len(labels))[labels == label]) <= 1


@every
def test_passes_differ_by_number_and_by_seed(name):
    labels = np.arange(40) % 3
    orders = {
        tuple(drawn(name, labels, length=40, seed=seed, number=number)) for seed in range(4) for number in range(4)
    }
    assert len(orders) == 16


@every
def test_no_place_is_preferred(name):
    # 2000 passes of ten exemplars of two classes of five: the first draw is each with probability 1/10; the standard
    # deviation of its count is sqrt(2000 * 0.1 * 0.9) = 13.4, so five of them.
    first = [drawn(name, np.arange(10) % 2, length=1, number=number)[0] for number in range(2000)]
    assert np.abs(np.bincount(first, minlength=10) - 200).max() <= 67


def test_an_unknown_sampler_is_told_with_the_known_ones():
    with pytest.raises(SchemaError, match=r"unknown sampler 'unifrm'; choose one of \['balanced', 'uniform'\]"):
        SAMPLERS["unifrm"]
