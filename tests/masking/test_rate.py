"""Rate-aware allocation against every possible choice."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exmem.errors import InvalidExemplarError
from exmem.masking import allocate


def total(table, choice):
    return table[np.arange(len(table)), choice].sum()


def best_value(values, sizes, max_bytes):
    choices = (np.array(choice) for choice in itertools.product(range(values.shape[1]), repeat=len(values)))
    return max(total(values, choice) for choice in choices if total(sizes, choice) <= max_bytes)


@st.composite
def problems(draw):
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    tables = [draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 20))) for _ in range(2)]
    for table in tables:
        table[:, 0] = 0
    return *tables, draw(st.integers(0, 50))


@given(problems())
def test_the_budget_is_kept_and_the_best_value_missed_by_less_than_one_option(problem):
    values, sizes, max_bytes = problem
    choice = allocate(values, sizes, max_bytes)
    assert choice.shape == (len(values),)
    assert total(sizes, choice) <= max_bytes
    missed = best_value(values, sizes, max_bytes) - total(values, choice)
    assert missed == 0 or missed < values.max()


@given(problems())
def test_no_change_of_one_item_that_fits_would_gain(problem):
    values, sizes, max_bytes = problem
    choice = allocate(values, sizes, max_bytes)
    for item, option in itertools.product(range(values.shape[0]), range(values.shape[1])):
        other = choice.copy()
        other[item] = option
        assert total(sizes, other) > max_bytes or total(values, other) <= total(values, choice)


@given(problems(), st.floats(0.01, 5))
def test_a_budget_that_a_multiplier_spends_exactly_is_spent_best(problem, multiplier):
    values, sizes, _ = problem
    spent = total(sizes, (values - multiplier * sizes).argmax(1))
    choice = allocate(values, sizes, spent)
    assert total(values, choice) == best_value(values, sizes, spent)


def test_bytes_go_where_they_buy_most():
    # A word of 10 bytes, and two patches that can be had coarse (20) or fine (60).
    values = np.array([[0, 5, 5], [0, 6, 9], [0, 2, 2.5]])
    sizes = np.array([[0, 10, 10], [0, 20, 60], [0, 20, 60]])
    assert allocate(values, sizes, 9).tolist() == [0, 0, 0]
    assert allocate(values, sizes, 10).tolist() == [1, 0, 0]
    assert allocate(values, sizes, 30).tolist() == [1, 1, 0]
    assert allocate(values, sizes, 50).tolist() == [1, 1, 1]
    assert allocate(values, sizes, 90).tolist() == [1, 2, 1]
    assert allocate(values, sizes, 1e6).tolist() == [1, 2, 2]
    assert allocate(values, sizes, 20).tolist() == [1, 0, 0]  # 6 would be better: the known gap


def test_equal_values_take_the_smaller_option_and_nothing_is_allocated_to_nothing():
    assert allocate(np.array([[0.0, 3, 3]]), np.array([[0.0, 9, 4]]), 100).tolist() == [2]
    assert allocate(np.zeros((0, 3)), np.zeros((0, 3)), 10).tolist() == []
    assert allocate(np.array([[0.0, 3]]), np.array([[0.0, 0]]), 0).tolist() == [1]


@pytest.mark.parametrize(
    ("values", "sizes", "max_bytes", "message"),
    [
        ([[0, 1]], [[0, 1, 2]], 5, "one shape|O >= 1"),
        ([[0, np.nan]], [[0, 1]], 5, "values: expected finite"),
        ([[0, 1]], [[0, -1]], 5, "sizes: expected finite"),
        ([[0, 1]], [[0, 1]], -1, "max_bytes: expected finite"),
        ([[1, 1]], [[0, 1]], 5, "option 0"),
    ],
)
def test_tables_that_make_no_sense_are_refused(values, sizes, max_bytes, message):
    with pytest.raises(InvalidExemplarError, match=message):
        allocate(np.array(values, np.float64), np.array(sizes, np.float64), max_bytes)
