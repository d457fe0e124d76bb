"""Keep rules: literals by hand, and what all of them promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exmem.codecs import get_codec
from exmem.errors import InvalidExemplarError, SchemaError
from exmem.masking import KEEP_RULES, cumulative, fit_bytes, keep_ratio, mean_threshold, top_k
from tests.exemplars import patches


def row(*scores):
    return np.array([scores], np.float32)


def places(keep):
    return np.flatnonzero(keep[0]).tolist()


OPTIONS = {
    "cumulative": {"mass": 0.7},
    "fit_bytes": {"max_bytes": 30, "encoded_bytes": lambda row, keep: 10 * int(keep.sum())},
    "keep_ratio": {"ratio": 0.4},
    "mean_threshold": {},
    "top_k": {"k": 1},
}
# Few different values, so that ties are common.
numbers = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1.5]) | st.floats(-3, 3, width=32)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 9))
tables = shapes.flatmap(
    lambda shape: st.tuples(hnp.arrays(np.float32, shape, elements=numbers), hnp.arrays(np.bool_, shape))
)


def test_the_mean_threshold_counts_multiples_of_the_mean():
    scores = row(0.0, 0.4, 0.2, 0.9)  # mean 0.375
    assert places(mean_threshold(scores)) == [1, 3]
    assert places(mean_threshold(scores, factor=2)) == [3]
    assert places(mean_threshold(scores, factor=0.5)) == [1, 2, 3]
    assert places(mean_threshold(scores, factor=9)) == [3]
    assert places(mean_threshold(row(0, 0.4, 9), valid=np.array([[True, True, False]]))) == [1]


def test_the_mean_threshold_counts_from_the_lowest_score_where_scores_are_below_zero():
    scores = row(-4, -3, -2, -1)  # 0, 1, 2 and 3 above the lowest: mean 1.5
    assert places(mean_threshold(scores)) == [2, 3]
    assert places(mean_threshold(scores, factor=0.5)) == [1, 2, 3]
    assert places(mean_threshold(scores, factor=1.5)) == [3]


def test_a_ratio_is_of_the_tokens_there_are_and_rounds_halves_up():
    scores = row(5, 4, 3, 2, 1, 9)
    valid = np.array([[True] * 5 + [False]])
    assert places(keep_ratio(scores, ratio=0.5, valid=valid)) == [0, 1, 2]
    assert places(keep_ratio(scores, ratio=0.49, valid=valid)) == [0, 1]
    assert places(keep_ratio(scores, ratio=0.01, valid=valid)) == [0]
    assert places(keep_ratio(scores, ratio=1, valid=valid)) == [0, 1, 2, 3, 4]
    assert keep_ratio(np.ones((1, 30), np.float32), ratio=0.1).sum() == 3  # 0.1 * 30 is not 3.0000000000000004


def test_a_mass_is_reached_by_the_fewest_tokens():
    scores = row(1, 4, 2, 3)
    assert places(cumulative(scores, mass=0.4)) == [1]
    assert places(cumulative(scores, mass=0.5)) == [1, 3]
    assert places(cumulative(scores, mass=1)) == [0, 1, 2, 3]
    assert places(cumulative(row(0, 1, 0), mass=1)) == [1]
    assert places(cumulative(row(0, 0, 0), mass=0.5)) == [0]
    assert places(cumulative(row(-3, -1, -2), mass=0.6)) == [1]  # shifted: 0, 2, 1


def test_bytes_are_those_of_the_encoded_tokens_of_each_row():
    images = [patches(seed) for seed in (0, 1, 2, 4)]  # 1,171 to 1,436 bytes
    codec = get_codec({"id": "patch_jpeg", "quality": 75}, shape=(16, 16, 3), dtype="uint8")
    asked = []

    def encoded_bytes(row, keep):
        asked.append(row)
        return len(codec.encode(images[row][keep]))

    scores = np.stack([image.reshape(16, -1).std(1) for image in images]).astype(np.float32)
    keep = fit_bytes(scores, max_bytes=600, encoded_bytes=encoded_bytes)
    calls = len(asked)
    for row in range(4):
        kept = int(keep[row].sum())
        assert 1 < kept < 16
        assert encoded_bytes(row, keep[row]) <= 600 < encoded_bytes(row, top_k(scores[[row]], k=kept + 1)[0])
    assert calls <= 4 * 6


@pytest.mark.parametrize(("max_bytes", "kept"), [(0, 1), (19, 1), (20, 1), (39, 1), (40, 2), (99, 4), (1000, 4)])
def test_everything_fits_or_the_last_that_fits_or_one(max_bytes, kept):
    scores, valid = row(1, 2, 3, 4, 5), np.array([[True] * 4 + [False]])
    keep = fit_bytes(scores, max_bytes=max_bytes, encoded_bytes=lambda row, keep: 20 * keep.sum(), valid=valid)
    assert places(keep) == list(range(4 - kept, 4))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 9))
def test_fitting_holds_its_promise_for_codecs_of_any_sizes(sizes, max_bytes):
    scores = -np.arange(len(sizes), dtype=np.float32)[None]
    keep = fit_bytes(scores, max_bytes=max_bytes, encoded_bytes=lambda row, keep: sizes[keep.sum() - 1])
    kept = int(keep.sum())
    assert keep[0, :kept].all()
    fits = sizes[kept - 1] <= max_bytes
    assert (fits and (kept == len(sizes) or sizes[kept] > max_bytes)) or (kept == 1 and not fits)


@pytest.mark.parametrize("name", KEEP_RULES)
@given(table=tables)
def test_at_least_one_token_is_kept_and_none_better_than_it_is_lost(name, table):
    scores, valid = table
    keep = KEEP_RULES.make(name, **OPTIONS[name])(scores, valid=valid)
    assert keep.dtype == np.bool_
    assert not (keep & ~valid).any()
    np.testing.assert_array_equal(keep.any(1), valid.any(1))
    for one, kept, there in zip(scores, keep, valid, strict=True):
        ranked = sorted(np.flatnonzero(there), key=lambda place: (-one[place], place))
        assert sorted(ranked[: int(kept.sum())]) == np.flatnonzero(kept).tolist()


@pytest.mark.parametrize("name", KEEP_RULES)
@given(table=tables, data=st.data())
def test_a_row_is_decided_by_itself(name, table, data):
    scores, valid = table
    rule = KEEP_RULES.make(name, **OPTIONS[name])
    chosen = data.draw(st.integers(0, len(scores) - 1))
    apart = rule(scores[[chosen]], valid=valid[[chosen]])
    np.testing.assert_array_equal(rule(scores, valid=valid)[[chosen]], apart)


@given(tables, st.floats(0.01, 1))
def test_the_share_kept_is_the_nearest_to_the_ratio(table, ratio):
    scores, valid = table
    kept, there = keep_ratio(scores, ratio=ratio, valid=valid).sum(1), valid.sum(1)
    assert ((np.abs(kept - ratio * there) <= 0.5 + 1e-9) | (kept == 1)).all()


@given(tables, st.floats(0.01, 1))
def test_the_mass_kept_is_enough_and_would_not_be_with_one_token_less(table, mass):
    scores, valid = table
    scores = np.abs(scores)
    keep = cumulative(scores, mass=mass, valid=valid)
    for one, kept, there in zip(scores.astype(np.float64), keep, valid, strict=True):
        total, chosen = one[there].sum(), one[kept]
        assert chosen.sum() >= mass * total - 1e-9
        assert kept.sum() <= 1 or chosen.sum() - chosen.min() < mass * total + 1e-9


@pytest.mark.parametrize("name", KEEP_RULES)
def test_scores_that_are_none_are_refused(name):
    rule = KEEP_RULES.make(name, **OPTIONS[name])
    with pytest.raises(InvalidExemplarError, match="row 1 contain NaN"):
        rule(np.array([[0, 1], [0, np.nan]], np.float32))
    assert rule(row(0, np.nan), valid=np.array([[True, False]])).tolist() == [[True, False]]
    with pytest.raises(InvalidExemplarError, match="same shape"):
        rule(row(0, 1), valid=np.ones((1, 3), np.bool_))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("top_k", {"k": 0}, r"k must be an integer of 1\.\.2, got 0"),
        ("top_k", {"k": 1.5}, r"k must be an integer of 1\.\.2, got 1\.5"),
        ("top_k", {"k": 3}, r"k must be an integer of 1\.\.2, got 3"),
        ("keep_ratio", {"ratio": 0}, "ratio must be above 0 and at most 1, got 0"),
        ("cumulative", {"mass": 1.5}, r"mass must be above 0 and at most 1, got 1\.5"),
    ],
)
def test_an_option_out_of_range_is_refused(name, options, message):
    with pytest.raises(InvalidExemplarError, match=message):
        KEEP_RULES.make(name, **options)(row(0, 1))


def test_an_unknown_keep_rule_lists_the_choices():
    with pytest.raises(SchemaError, match=r"unknown keep rule 'top'; choose one of .*'cumulative'"):
        KEEP_RULES.make("top")
