import numpy as np
import pytest

from exmem.errors import DataError
from exmem.train.methods import Labelled
from exmem.train.methods.ranpac import RanPac, held_out_errors


def examples(*classes, number=20, seed=0):
    rng = np.random.default_rng([seed, *classes])
    labels = np.repeat(np.array(classes, np.int64), number)
    # Lines through the origin, one for each class: no linear classifier of the features tells them apart.
    angles = labels * np.pi / 3 + rng.normal(scale=0.1, size=len(labels))
    along = rng.choice([-1, 1], len(labels)) * rng.uniform(1, 2, len(labels))
    features = np.stack(
        [along * np.cos(angles), along * np.sin(angles), *rng.normal(scale=0.1, size=(2, len(labels)))], 1
    )
    return Labelled(features.astype(np.float32), labels)


def test_the_projection_tells_apart_what_no_linear_classifier_can():
    head = RanPac(projection=200)
    head.fit(examples(0, 1, number=60))
    head.fit(examples(2, number=60))
    test = examples(0, 1, 2, number=60, seed=1)
    assert (
        head.predict(test.features) == test.labels
    ).mean() > 0.95  # chance is a third, sectors are ten standard deviations apart


@pytest.mark.parametrize("values", [7, 60])
def test_errors_on_the_held_out_part_are_those_of_a_fit_for_each_strength(values):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(50, values)).astype(np.float32), np.arange(50) % 3
    strengths = np.array([0.1, 10.0, 1e4])
    errors = held_out_errors(rows, labels, number=40, strengths=strengths)
    targets, fitted = np.eye(3)[labels], rows[:40].astype(float)
    for error, strength in zip(errors, strengths, strict=True):
        weights = np.linalg.solve(fitted.T @ fitted + strength * np.eye(values), fitted.T @ targets[:40])
        assert error == pytest.approx(((rows[40:] @ weights - targets[40:]) ** 2).mean(), rel=1e-8)


def test_a_strength_is_chosen_anew_in_each_phase_and_kept_in_one_of_a_single_example():
    head = RanPac(projection=30)
    head.fit(examples(0, 1, number=40))
    chosen = head.strength
    assert np.log10(chosen) in range(-8, 9)
    head.fit(examples(2, number=1))
    assert (head.strength, head.classes) == (chosen, (0, 1, 2))


def test_one_example_is_enough_for_a_first_phase():
    head = RanPac(projection=30)
    head.fit(examples(2, number=1))
    assert (head.strength, head.predict(examples(0).features).tolist()) == (1.0, [2] * 20)


def test_more_columns_than_examples_are_resolved_in_float32():
    head = RanPac(projection=300)
    data = examples(0, 1, number=10)
    head.fit(data)
    head.load({**head.state(), "strength": np.array([1e-8])})  # the sums have rank 20
    assert (head.predict(data.features) == data.labels).all()


def test_a_state_of_another_seed_or_size_is_refused_and_changes_nothing():
    head = RanPac(projection=30)
    head.fit(examples(0, 1))
    state = head.state()
    for options in ({"projection": 30, "seed": 1}, {"projection": 31}):
        other = RanPac(**options)
        with pytest.raises(DataError, match=r"expected one by seed . to 3. values, got \[0, 4, 30\]"):
            other.load(state)
        assert other.classes == ()
    for strength in (np.array([-1.0]), np.array([]), np.array([np.nan])):
        with pytest.raises(DataError, match="one number above 0"):
            head.load({**state, "strength": strength})


def test_the_projection_is_drawn_by_the_seed_alone():
    one, two, other = (RanPac(projection=8, seed=seed) for seed in (3, 3, 4))
    assert (one._matrix_for(5) == two._matrix_for(5)).all()
    assert (one._matrix_for(5) != other._matrix_for(5)).all()
