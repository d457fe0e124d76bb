"""Recipes against one of them, with numbers worked out by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exmem.errors import SchemaError
from exmem.report.tradeoff.comparisons import (
    COMPARISON_COLUMNS,
    Needed,
    area,
    bytes_needed,
    chosen_baseline,
    comparisons,
    write_comparisons,
)
from exmem.report.tradeoff.frontier import last_phases
from tests.report.tradeoff.sample import row, sampled, table_of

SHARES = st.floats(0, 1)
CURVES = st.lists(st.tuples(st.integers(1, 10**9), SHARES), min_size=2, max_size=8, unique_by=lambda point: point[0])


def compared(*rows, baseline="half_jpeg", comparison):
    table = comparisons(last_phases(table_of(*rows)), baseline)
    return table[table["comparison"] == comparison].reset_index(drop=True)


def test_bytes_are_read_off_on_the_logarithm():
    assert bytes_needed([100, 10_000], [0.2, 0.6], 0.4) == Needed(pytest.approx(1_000))
    assert bytes_needed([10_000, 100], [0.6, 0.2], 0.3) == Needed(pytest.approx(100 * 10**0.5))
    assert bytes_needed([100, 10_000], [0.2, 0.6], 0.6) == Needed(pytest.approx(10_000))


def test_what_is_exceeded_everywhere_or_reached_nowhere_is_bounded():
    assert bytes_needed([100, 10_000], [0.2, 0.6], 0.1) == Needed(100, "<")
    assert bytes_needed([100, 10_000], [0.2, 0.6], 0.2) == Needed(100)
    assert bytes_needed([100, 10_000], [0.2, 0.6], 0.7) == Needed(10_000, ">")
    assert bytes_needed([100], [0.5], 0.7) == Needed(100, ">")


def test_of_a_curve_that_falls_again_the_first_crossing_counts_and_equal_bytes_are_one_point():
    assert bytes_needed([1, 100, 10_000], [0.2, 0.6, 0.1], 0.4) == Needed(pytest.approx(10))
    assert bytes_needed([1, 100, 100], [0.2, 0.5, 0.7], 0.4) == Needed(pytest.approx(10))


@given(CURVES, SHARES)
def test_bytes_lie_on_the_curve_or_at_its_ends(curve, target):
    sizes, accuracies = zip(*sorted(curve), strict=True)
    needed = bytes_needed(sizes, accuracies, target)
    if needed.bound == "<":
        assert needed.bytes == sizes[0]
        assert target < accuracies[0]
    elif needed.bound == ">":
        assert needed.bytes == sizes[-1]
        assert target > max(accuracies)
    else:
        assert sizes[0] <= needed.bytes * (1 + 1e-9)
        assert needed.bytes <= sizes[-1] * (1 + 1e-9)
        gaps = [abs(a - b) for a, b in itertools.pairwise(accuracies)]
        assume(max(gaps) < 1e6 * min(math.log(b / a) for a, b in itertools.pairwise(sizes)))
        read = np.interp(np.log(needed.bytes), np.log(sizes), accuracies)
        assert read == pytest.approx(target, abs=1e-6)  # a logarithm and back


def test_an_area_is_the_mean_over_the_logarithm():
    assert area([100, 10_000], [0.2, 0.6], 100, 10_000) == pytest.approx(0.4)
    assert area([100, 10_000], [0.2, 0.6], 1_000, 10_000) == pytest.approx(0.5)
    assert area([1, 10, 1_000], [0.0, 0.6, 0.6], 1, 1_000) == pytest.approx((0.3 + 0.6 * 2) / 3)
    assert math.isnan(area([100, 1_000], [0.2, 0.6], 100, 10_000))
    assert math.isnan(area([100], [0.2], 100, 100))


@given(CURVES)
def test_an_area_lies_between_the_lowest_and_the_highest_accuracy(curve):
    sizes, accuracies = zip(*sorted(curve), strict=True)
    value = area(sizes, accuracies, sizes[0], sizes[-1])
    assert min(accuracies) - 1e-9 <= value <= max(accuracies) + 1e-9


def test_accuracy_at_equal_bytes_is_the_mean_of_paired_differences():
    rows = [row(recipe="half_jpeg", seed=seed, average=value) for seed, value in enumerate([0.50, 0.40, 0.60])]
    rows += [row(recipe="masked", seed=seed, average=value) for seed, value in enumerate([0.52, 0.44, 0.66])]
    rows += [row(recipe="masked", seed=9, average=0.0)]  # a seed that the baseline lacks
    (one,) = compared(*rows, comparison="accuracy at equal bytes").itertuples()
    assert (one.recipe, one.baseline, one.budget, one.n) == ("masked", "half_jpeg", "60 kB", 3)
    assert (one.recipe_value, one.baseline_value) == (pytest.approx(0.54), pytest.approx(0.5))
    assert one.value == pytest.approx(0.04)
    assert one.high - one.value == pytest.approx(4.302653 * 0.02 / 3**0.5)


def test_of_one_seed_there_is_a_difference_and_no_interval():
    (one,) = compared(row(), row(recipe="masked", average=0.6), comparison="accuracy at equal bytes").itertuples()
    assert one.value == pytest.approx(0.1)
    assert one.n == 1
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def curve(recipe, sizes, accuracies, seed=0):
    budgets = zip(("60 kB", "125 kB", "250 kB"), sizes, accuracies, strict=False)
    return [row(recipe=recipe, budget=name, bytes=size, average=value, seed=seed) for name, size, value in budgets]


def test_a_recipe_that_reaches_the_same_with_half_the_bytes_has_a_ratio_of_one_half():
    rows = [*curve("half_jpeg", [100, 200, 400], [0.2, 0.4, 0.6]), *curve("masked", [50, 100, 200], [0.2, 0.4, 0.6])]
    table = compared(*rows, comparison="bytes at equal accuracy")
    assert table["value"].tolist() == [pytest.approx(0.5)] * 3
    assert table["bound"].tolist() == ["", "", ""]
    assert table["recipe_value"].tolist() == [pytest.approx(50), pytest.approx(100), pytest.approx(200)]


def test_a_ratio_is_a_geometric_mean_with_an_interval_on_its_logarithm():
    rows = []
    for seed, factor in enumerate([0.25, 0.5, 1.0]):
        rows += curve("half_jpeg", [100, 200, 400], [0.2, 0.4, 0.6], seed)
        rows += curve("masked", [100 * factor, 200 * factor, 400 * factor], [0.2, 0.4, 0.6], seed)
    first = compared(*rows, comparison="bytes at equal accuracy").iloc[0]
    half = 4.302653 * math.log(2) / 3**0.5
    assert first["value"] == pytest.approx(0.5)
    assert (first["low"], first["high"]) == (pytest.approx(0.5 * math.exp(-half)), pytest.approx(0.5 * math.exp(half)))


def test_bounds_on_one_side_bound_the_mean_and_on_both_sides_nothing():
    low, high = [0.1, 0.15, 0.18], [0.7, 0.8, 0.9]
    rows = [
        *curve("half_jpeg", [100, 200, 400], [0.2, 0.4, 0.6]),
        *curve("half_jpeg", [100, 200, 400], [0.2, 0.4, 0.6], 1),
    ]
    above = compared(
        *rows,
        *curve("m", [80, 160, 320], high),
        *curve("m", [80, 160, 320], high, 1),
        comparison="bytes at equal accuracy",
    )
    assert above["bound"].tolist() == ["<", "<", "<"]
    assert above["value"].tolist() == [pytest.approx(0.8), pytest.approx(0.4), pytest.approx(0.2)]
    assert above["low"].isna().all()
    mixed = compared(
        *rows,
        *curve("m", [80, 160, 320], high),
        *curve("m", [80, 160, 320], low, 1),
        comparison="bytes at equal accuracy",
    )
    assert mixed["bound"].tolist() == ["mixed"] * 3
    assert mixed["value"].isna().all()


def test_areas_are_compared_within_the_budgets_that_all_recipes_share():
    rows = [*curve("half_jpeg", [1, 1, 1], [0.2, 0.4, 0.6]), *curve("masked", [1, 1], [0.4, 0.6])]
    rows.append(row(recipe="lonely", budget="1 MB", average=0.9))  # of one budget: it narrows nothing
    table = compared(*rows, comparison="area").set_index("recipe")
    assert list(table.index) == ["half_jpeg", "masked"]
    assert set(table["budget"]) == {"60.0 kB to 125 kB"}
    assert table.loc["half_jpeg", "recipe_value"] == pytest.approx(0.3)
    assert table.loc["masked", "value"] == pytest.approx(0.2)
    assert table["n"].tolist() == [1, 1]


def test_a_group_without_the_baseline_has_areas_alone():
    table = comparisons(
        last_phases(table_of(*curve("raw", [1, 1], [0.2, 0.4]), *curve("jpeg", [1, 1], [0.2, 0.4]))), "x"
    )
    assert set(table["comparison"]) == {"area"}
    assert table["value"].isna().all()


def test_the_baseline_is_the_one_that_is_named_or_half_jpeg_or_the_first():
    assert chosen_baseline(["raw", "half_jpeg", "text"], wanted="text") == "text"
    assert chosen_baseline(["raw", "half_jpeg"]) == "half_jpeg"
    assert chosen_baseline(["raw", "text"]) == "raw"
    assert chosen_baseline(["raw", "half_jpeg"], ["best_jpeg"]) == "best_jpeg"
    assert chosen_baseline(["raw"], ["best_jpeg"], "raw") == "raw"
    with pytest.raises(SchemaError, match=r"unknown recipe 'jpg'; choose of \['raw', 'jpeg'\]"):
        chosen_baseline(["raw", "jpeg"], wanted="jpg")


def test_the_file_has_all_columns_and_no_row_compares_the_baseline_with_itself(tmp_path):
    table = comparisons(last_phases(sampled()), "half_jpeg")
    write_comparisons(table, tmp_path / "comparisons.csv")
    again = pd.read_csv(tmp_path / "comparisons.csv")
    assert list(again.columns) == COMPARISON_COLUMNS
    assert len(again) == len(table)
    own = again[again["recipe"] == "half_jpeg"]
    assert set(own["comparison"]) == {"area"}
    assert own["value"].isna().all()
    assert set(again.loc[again["kind"] == "probe", "measure"]) == {"average"}
    assert set(again.loc[again["kind"] == "trainer", "measure"]) == {"average", "last"}


def test_what_is_over_its_budget_is_at_no_equal_bytes_and_in_no_area():
    rows = [
        row(recipe=recipe, budget=budget, bytes=size, average=0.5)
        for budget in ("60 kB", "125 kB")
        for recipe, size in (("half_jpeg", 50_000), ("whole", 900_000))
    ]
    table = comparisons(last_phases(table_of(*rows)), "half_jpeg")
    assert set(table.loc[table["recipe"] == "whole", "comparison"]) == {"bytes at equal accuracy"}


def test_equal_curves_need_equal_bytes_even_where_they_fall():
    sizes, heights = [1, 2, 4], [0.3, 0.25, 0.4]
    table = comparisons(last_phases(table_of(*curve("raw", sizes, heights), *curve("jpeg", sizes, heights))), "jpeg")
    same = table[table["comparison"] == "bytes at equal accuracy"]
    assert same["value"].tolist() == [1, 1, 1]
    assert set(same["bound"]) == {""}
