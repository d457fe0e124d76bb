"""Selection rules: one contract for all, and what each one is for."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import InvalidExemplarError, SchemaError
from exmem.memory.reservoir import StreamReservoir, arrival_keys
from exmem.selection import (
    SELECTIONS,
    Reservoir,
    closest_to_mean,
    herding,
    k_centre,
    random_order,
    ranked,
    reservoir_order,
)

PARTS = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])  # few values: many ties and zero vectors


def inputs(rows, seed=0):
    """Everything a rule may ask for, of examples that are rows of three features."""
    features = np.array(rows, np.float64).reshape(len(rows), 3)
    return {"features": features, "values": features.sum(axis=1), "rng": np.random.default_rng(seed)}


@pytest.fixture(params=sorted(SELECTIONS))
def rule(request):
    return SELECTIONS.make(request.param)


# The contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SELECTIONS))
@given(rows=st.lists(st.tuples(PARTS, PARTS, PARTS), max_size=14), seed=st.integers(0, 9))
def test_every_shorter_order_is_the_front_of_the_whole_one_and_that_takes_each_example_once(name, rows, seed):
    rule = SELECTIONS.make(name)
    whole = rule(len(rows), **inputs(rows, seed))
    assert whole.dtype == np.int64
    assert sorted(whole.tolist()) == list(range(len(rows)))
    for count in range(len(rows) + 2):
        assert rule(len(rows), **inputs(rows, seed), count=count).tolist() == whole[:count].tolist()


def test_the_inputs_stay_as_they_were(rule):
    given_rows = inputs([(1, 2, 3), (4, 5, 6)])
    before = {name: given_rows[name].copy() for name in ("features", "values")}
    rule(2, **given_rows)
    for name, value in before.items():
        np.testing.assert_array_equal(given_rows[name], value)


def test_what_a_rule_goes_by_is_asked_for_and_nothing_else(rule):
    every = inputs([(1, 2, 3), (4, 5, 6)])
    assert len(rule(2, **{rule.needs: every.pop(rule.needs)})) == 2
    with pytest.raises(SchemaError, match=f"goes by {rule.needs}, got none; give {rule.needs}="):
        rule(2, **every)


def test_a_negative_count_is_refused(rule):
    with pytest.raises(InvalidExemplarError, match="count must be an integer of 0"):
        rule(2, **inputs([(1, 2, 3), (4, 5, 6)]), count=-1)


@pytest.mark.parametrize("name", sorted(name for name, rule in SELECTIONS.items() if rule.needs != "rng"))
def test_nan_and_another_number_of_examples_are_refused(name):
    rule = SELECTIONS[name]
    bad = inputs([(1, 2, np.nan), (4, 5, 6)])
    with pytest.raises(InvalidExemplarError, match="without NaN"):
        rule(2, **bad)
    with pytest.raises(InvalidExemplarError, match="of 3 examples, got shape"):
        rule(3, **inputs([(1, 2, 3), (4, 5, 6)]))
    with pytest.raises(InvalidExemplarError, match=r"got shape \(2, 1, 1\)"):
        rule(2, **{rule.needs: np.ones((2, 1, 1))})


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_equal_examples_go_by_index_where_no_chance_is_in_play(name):
    if SELECTIONS[name].needs != "rng":
        assert SELECTIONS[name](4, **inputs([(1, 1, 1)] * 4)).tolist() == [0, 1, 2, 3]


def test_an_unknown_rule_is_answered_with_the_choices():
    with pytest.raises(SchemaError, match=r"unknown selection 'herd'; choose one of \['closest_to_mean', 'entropy'"):
        SELECTIONS.make("herd")


# What each is for --------------------------------------------------------------------------------------------------

FAN = np.array([[np.cos(angle), np.sin(angle)] for angle in np.radians([0, 10, 20, 82, 90])])  # mean direction: 39


def test_closest_to_mean_goes_by_distance_alone():
    assert closest_to_mean(FAN).tolist() == [2, 1, 0, 3, 4]


def test_k_centre_starts_in_the_middle_and_then_takes_what_is_farthest():
    # From 20 degrees 90 is farthest (70 away), then 0 (20 away), then 10 (10 away), then 82 (8 away).
    assert k_centre(FAN).tolist() == [2, 4, 0, 1, 3]


def test_herding_balances_what_it_took():
    order = herding(FAN)
    assert order[0] == 2
    assert order[1] in {3, 4}  # 20 degrees alone is below the mean of 39


@given(st.lists(st.tuples(PARTS, PARTS, PARTS), min_size=2, max_size=12), st.integers(1, 4))
def test_k_centre_covers_at_most_twice_as_badly_as_any_choice(rows, count):
    features = np.array(rows) + 2.0
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    count = min(count, len(rows))

    def radius(chosen):
        return distances[:, chosen].min(axis=1).max()

    rng = np.random.default_rng(0)
    others = min(radius(rng.choice(len(rows), count, replace=False)) for _ in range(40))
    assert radius(k_centre(features, count=count)) <= 2 * others + 1e-12  # rounding of square roots


def test_ranked_takes_either_end_first_and_infinite_values_too():
    values = [0.5, np.inf, -np.inf, 0.5]
    assert ranked(values).tolist() == [1, 0, 3, 2]
    assert ranked(values, first="lowest").tolist() == [2, 0, 3, 1]
    with pytest.raises(SchemaError, match="unknown end 'best'"):
        ranked(values, first="best")


def test_random_orders_differ_by_seed_only():
    first, again, other = (random_order(50, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 99))
def test_a_reservoir_order_of_a_stream_that_went_on_keeps_the_order_of_what_came_before(number, more, seed):
    before, after = (reservoir_order(n, np.random.default_rng(seed)) for n in (number, number + more))
    assert after[after < number].tolist() == before.tolist()


def test_a_prefix_of_a_reservoir_order_holds_each_arrival_equally_often():
    held = np.zeros(10)
    for seed in range(3000):
        held[reservoir_order(10, np.random.default_rng(seed), count=3)] += 1
    # 3000 draws of probability 0.3: standard deviation 25, so five of them
    assert np.abs(held - 900).max() < 126


def test_a_stream_reservoir_holds_the_arrivals_with_the_highest_keys(tmp_path):
    spec = Schema({"x": TokenSpec(positions=1, shape=(64,), dtype="float16", codec="raw")})
    values = np.zeros((1, 64), np.float16)
    arrivals = [Exemplar({"x": TokenSet([0], values)}, label=index % 5) for index in range(600)]
    options = {"max_bytes": "40kB", "eviction": "by_priority", "durable": False, "threads": 1}
    with ExemplarMemory.create(tmp_path, schema=spec, **options) as memory:
        reservoir, held = StreamReservoir(memory, seed=4), {}
        for start in range(0, 600, 50):
            report = reservoir.add(arrivals[start : start + 50])
            held |= {slot: start + at for at, slot in enumerate(report.slots.tolist()) if slot >= 0}
            held = {slot: arrival for slot, arrival in held.items() if slot in set(memory.slots.tolist())}
    assert 20 < len(held) < 400
    expected = np.argsort(-arrival_keys(4, 0, 600))[: len(held)]
    assert set(held.values()) == set(expected.tolist())


def test_the_front_of_herding_lies_nearer_to_the_class_mean_than_chance():
    features = np.random.default_rng(0).normal(size=(20, 5)) + 1
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    fronts = (herding(features)[:5], random_order(20, np.random.default_rng(1))[:5])
    near, far = (np.linalg.norm(rows[front].mean(0) - rows.mean(0)) for front in fronts)
    assert near < far


@pytest.mark.parametrize("rule", [herding, k_centre, closest_to_mean])
@pytest.mark.parametrize(("dtype", "scale"), [("float32", 2.0**100), ("float32", 2.0**126), ("float64", 2.0**1020)])
def test_how_long_features_are_changes_no_order_even_where_their_squares_overflow(rule, dtype, scale):
    rows = np.random.default_rng(0).integers(-3, 4, (12, 4)).astype(dtype)
    expected = rule(rows).tolist()
    assert rule(rows * np.asarray(scale, dtype)).tolist() == expected  # a power of two rounds nothing
    rows[::2] *= np.asarray(scale, dtype)
    assert sorted(rule(rows).tolist()) == list(range(12))
    assert rule(rows).tolist() == expected, "each row alone, too"


def test_a_saved_reservoir_goes_on_only_in_one_of_as_many_places():
    reservoir, again = Reservoir(max_exemplars=2, seed=1), Reservoir(max_exemplars=2, seed=5)
    assert [reservoir.offer() for _ in range(2)] == [0, 1]
    again.load_state_dict(json.loads(json.dumps(reservoir.state_dict())))
    assert [again.offer() for _ in range(20)] == [reservoir.offer() for _ in range(20)]
    with pytest.raises(SchemaError, match="a reservoir of 3, got 2"):
        Reservoir(3).load_state_dict(reservoir.state_dict())
    with pytest.raises(SchemaError, match="max_exemplars must be 1 or more, got 0"):
        Reservoir(0)


def test_a_reservoir_holds_each_arrival_equally_often():
    held = np.zeros(10)
    for seed in range(3000):
        places, reservoir = {}, Reservoir(3, seed=seed)
        for item in range(10):
            place = reservoir.offer()
            if place is not None:
                places[place] = item
        held[list(places.values())] += 1
    # 3000 draws of probability 0.3: standard deviation 25, so five of them
    assert np.abs(held - 900).max() < 126


@pytest.mark.torch
@pytest.mark.parametrize("name", ["herding", "k_centre", "closest_to_mean", "loss"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tensors_of_any_dtype_and_with_gradient_are_taken_as_arrays_are(name, dtype):
    torch = pytest.importorskip("torch")
    rows = np.random.default_rng(0).integers(-4, 5, (9, 3) if name != "loss" else 9) / 4  # exact in any of them
    tensor = torch.tensor(rows, dtype=getattr(torch, dtype), requires_grad=True)
    needed = "values" if name == "loss" else "features"
    rule = SELECTIONS[name]
    np.testing.assert_array_equal(rule(9, **{needed: tensor}), rule(9, **{needed: rows}))


def test_features_that_are_no_numbers_are_refused_in_words():
    with pytest.raises(InvalidExemplarError, match=r"features: expected numbers, got <U1"):
        herding([["a", "b"]])
