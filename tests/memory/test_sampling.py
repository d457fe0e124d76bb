"""What is drawn: how often, of which class, and always the same by seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem.errors import SchemaError
from exmem.memory.sampling import draw

LABELS = st.lists(st.sampled_from([-(2**63), -3, 0, 1, 2, 2**63 - 1]), min_size=1, max_size=30)


@given(LABELS, st.integers(0, 80), st.integers(0, 2**63 - 1))
def test_uniform_draws_each_exemplar_equally_often_give_or_take_one(labels, n, seed):
    drawn = draw(np.array(labels, np.int64), n, seed=seed)
    assert (drawn.dtype, len(drawn)) == (np.int64, n)
    times = np.bincount(drawn, minlength=len(labels))
    assert len(times) == len(labels)
    assert times.max() - times.min() <= 1


@given(LABELS, st.integers(0, 80), st.integers(0, 2**63 - 1))
def test_balanced_draws_each_class_equally_often_and_each_exemplar_of_a_class_too(labels, n, seed):
    labels = np.array(labels, np.int64)
    drawn = draw(labels, n, sampler="balanced", seed=seed)
    assert (drawn.dtype, len(drawn)) == (np.int64, n)
    times = np.bincount(drawn, minlength=len(labels))
    of_class = [times[labels == label] for label in np.unique(labels)]
    totals = [int(own.sum()) for own in of_class]
    assert sum(totals) == n
    assert max(totals) - min(totals) <= 1
    assert all(own.max() - own.min() <= 1 for own in of_class)


@pytest.mark.parametrize("sampler", ["uniform", "balanced"])
def test_the_seed_decides_and_every_exemplar_and_every_order_comes(sampler):
    labels = np.array([5, 5, 5, 1])
    assert draw(labels, 9, sampler=sampler, seed=4).tolist() == draw(labels, 9, sampler=sampler, seed=4).tolist()
    firsts = [int(draw(labels, 2, sampler=sampler, seed=seed)[0]) for seed in range(600)]
    # Class 1 has one of four exemplars and one of two classes. 600 draws have a deviation below 0.021; five of them.
    assert abs(firsts.count(3) / 600 - {"uniform": 1 / 4, "balanced": 1 / 2}[sampler]) < 0.105
    pairs = {tuple(draw(labels, 2, sampler=sampler, seed=seed).tolist()) for seed in range(600)}
    assert len(pairs) == {"uniform": 12, "balanced": 6}[sampler]


@pytest.mark.parametrize("spread", [1, 2**40], ids=["sorted as 16 bits", "sorted as they are"])
def test_how_labels_are_numbered_changes_no_draw(spread):
    labels = np.random.default_rng(0).integers(0, 9, 200)
    drawn = draw(labels * spread - 5, 50, sampler="balanced", seed=1)
    np.testing.assert_array_equal(drawn, draw(labels, 50, sampler="balanced", seed=1))


@pytest.mark.parametrize("sampler", ["uniform", "balanced"])
def test_what_cannot_be_drawn_is_refused(sampler):
    nothing, one = np.zeros(0, np.int64), np.zeros(1, np.int64)
    assert draw(nothing, 0, sampler=sampler).tolist() == []
    with pytest.raises(SchemaError, match="holds no exemplar"):
        draw(nothing, 1, sampler=sampler)
    with pytest.raises(SchemaError, match=r"number to draw must be an integer of 0\.\.16777216, got -1"):
        draw(one, -1, sampler=sampler)
    with pytest.raises(SchemaError, match="seed must be an integer of 0"):
        draw(one, 1, sampler=sampler, seed=-1)
    with pytest.raises(SchemaError, match="number to draw"):
        draw(one, 2**24 + 1, sampler=sampler)
    with pytest.raises(SchemaError, match=r"unknown sampler 'even'; choose one of \['balanced', 'uniform'\]"):
        draw(one, 1, sampler="even")
