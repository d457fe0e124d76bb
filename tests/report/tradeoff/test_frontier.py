"""Means, intervals and the Pareto front of a trade-off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem.report.tradeoff.frontier import (
    CURVE_COLUMNS,
    across_methods,
    curves,
    interval,
    last_phases,
    pareto,
    with_best,
)
from tests.report.tradeoff.sample import row, sampled, table_of

SHARES = st.floats(0, 1)


def test_an_interval_is_that_of_students_t():
    known = interval([0.5, 0.6, 0.7])  # deviation 0.1; t of two degrees of freedom at 97.5 % is 4.302653
    assert (known.mean, known.n) == (pytest.approx(0.6), 3)
    assert known.high - known.mean == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert known.mean - known.low == pytest.approx(known.high - known.mean)


def test_of_one_value_there_is_no_interval_and_of_none_no_mean():
    one = interval([0.5, float("nan")])
    assert (one.mean, one.n) == (0.5, 1)
    assert np.isnan([one.low, one.high]).all()
    assert interval([]).n == 0
    assert np.isnan(interval([float("nan")]).mean)


@given(st.lists(SHARES, min_size=2, max_size=8))
def test_an_interval_holds_its_mean(values):
    known = interval(values)
    assert known.low <= known.mean <= known.high


def test_the_front_is_what_nothing_beats_in_both():
    sizes, accuracies = [10, 20, 20, 30, 40, 10], [0.2, 0.5, 0.4, 0.5, 0.6, 0.2]
    assert pareto(sizes, accuracies) == [True, True, False, False, True, True]
    assert pareto([], []) == []


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), max_size=12))
def test_a_point_is_on_the_front_unless_another_dominates_it(points):
    front = pareto([size for size, _ in points], [accuracy / 5 for _, accuracy in points])
    for (size, accuracy), on_front in zip(points, front, strict=True):
        beaten = any(s <= size and a >= accuracy and (s < size or a > accuracy) for s, a in points)
        assert on_front == (not beaten)


def test_a_curve_has_the_means_of_the_last_phases_over_seeds_by_bytes():
    table = table_of(
        row(kind="trainer", method="m", seed=0, phase=0, average=0.9, bytes=10),
        row(kind="trainer", method="m", seed=0, phase=1, average=0.4, last=0.2, bytes=50_000),
        row(kind="trainer", method="m", seed=1, phase=1, average=0.6, last=0.3, bytes=58_000),
        row(kind="trainer", method="m", seed=0, phase=1, average=0.3, last=0.1, bytes=30_000, budget="30 kB"),
    )
    points = curves(last_phases(table))
    assert list(points.columns) == CURVE_COLUMNS
    average = points[points["measure"] == "average"]
    assert average["bytes"].tolist() == [30_000, 54_000]
    assert average["accuracy"].tolist() == [pytest.approx(0.3), pytest.approx(0.5)]
    assert average["n"].tolist() == [1, 2]
    assert average["low"].isna().tolist() == [True, False]
    assert points[points["measure"] == "last"]["accuracy"].tolist() == [pytest.approx(0.1), pytest.approx(0.25)]


def test_a_budget_at_which_nothing_was_stored_has_no_point_and_a_probe_one_measure():
    table = table_of(row(average=float("nan")), row(budget="125 kB", average=0.4))
    points = curves(last_phases(table))
    assert points["budget"].tolist() == ["125 kB"]
    assert points["measure"].tolist() == ["average"]


def test_fronts_of_different_kinds_and_data_know_nothing_of_each_other():
    points = curves(last_phases(sampled()))
    for _, group in points.groupby(["kind", "data", "method", "measure"]):
        assert group["front"].any()
        assert group.loc[group["accuracy"].idxmax(), "front"]


def test_an_empty_table_has_no_points():
    assert list(curves(last_phases(table_of())).columns) == CURVE_COLUMNS


def test_points_of_fewer_seeds_than_others_are_not_on_the_front():
    table = table_of(
        row(recipe="lucky", seed=0, average=0.9, bytes=10_000),
        row(recipe="whole", seed=0, average=0.5, bytes=20_000),
        row(recipe="whole", seed=1, average=0.6, bytes=20_000),
    )
    found = curves(last_phases(table))
    assert dict(zip(found["recipe"], found["front"], strict=True)) == {"lucky": False, "whole": True}


def test_the_best_of_some_is_at_each_budget_the_recipe_of_the_highest_mean_that_has_all_seeds():
    table = table_of(
        *(row(recipe="a", seed=seed, average=0.3 + seed / 10) for seed in (0, 1)),
        *(row(recipe="b", seed=seed, average=0.34) for seed in (0, 1)),
        row(recipe="c", average=0.9),  # of one seed
        *(row(recipe="over", seed=seed, average=0.9, bytes=60_001) for seed in (0, 1)),
        row(recipe="d", average=0.8),  # not asked for
        *(
            row(recipe=name, budget="125 kB", average=mean, bytes=size)
            for name, mean, size in (("a", 0.6, 9), ("b", 0.6, 8))
        ),
    )
    best = with_best(table, {"best": ["a", "b", "c", "over"]})
    found = best[best["recipe"] == "best"].groupby("budget")["average"].apply(list).to_dict()
    assert found == {"60 kB": [0.3, 0.4], "125 kB": [0.6]}
    assert best.loc[(best["recipe"] == "best") & (best["budget"] == "125 kB"), "bytes"].tolist() == [8]
    assert len(best) == len(table) + 3
    assert with_best(table, {}) is table


def test_methods_are_compared_by_the_best_recipe_of_each_within_the_budget():
    table = table_of(
        row(method="one", recipe="a", average=0.3),
        row(method="one", recipe="b", average=0.5, bytes=10),
        row(method="one", recipe="over", average=0.9, bytes=60_001),
        row(method="one", recipe="b", budget="125 kB", average=0.6, bytes=7),
        row(method="two", recipe="c", average=0.4, bytes=5),
        row(method="alone", data="other", average=0.4),
    )
    found = across_methods(curves(table))
    assert found[["data", "recipe", "method", "bytes", "accuracy", "front"]].values.tolist() == [
        ["own", "one", "best of each", 7, 0.6, True],
        ["own", "one", "best of each", 10, 0.5, False],
        ["own", "two", "best of each", 5, 0.4, True],
    ]
    assert list(found.columns) == CURVE_COLUMNS
    assert len(across_methods(curves(table.iloc[:1]))) == 0


def test_what_is_over_its_budget_is_not_on_the_front():
    points = curves(table_of(row(recipe="a"), row(recipe="over", average=0.9, bytes=60_001)))
    assert points.set_index("recipe")["front"].to_dict() == {"a": True, "over": False}
