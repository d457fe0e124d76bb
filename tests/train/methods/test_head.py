"""What every head keeps to, those of the registry among them."""

import numpy as np
import pytest

from exmem.errors import DataError, SchemaError
from exmem.train.methods import HEADS, Labelled

DIM = 6
OPTIONS = {"ranpac": {"projection": 40}}
NONE = Labelled(np.zeros((0, DIM), np.float32), np.zeros(0, np.int64))
CENTRES = {70: 0, -3: 1, 12: 2, 5: 3}  # class: axis along which its features lie


def head(name):
    return HEADS.make(name, **OPTIONS.get(name, {}))


def examples(*classes, number=30, seed=0):
    rng = np.random.default_rng([seed, number])
    features = rng.normal(scale=0.3, size=(number * len(classes), DIM)).astype(np.float32)
    labels = rng.permutation(np.repeat(np.array(classes, np.int64), number))
    for row, label in enumerate(labels.tolist()):
        features[row, CENTRES[label]] += 3
    return Labelled(features, labels)


def kept(made):
    """Bytes that a head carries."""
    return sum(array.nbytes for array in made.state().values())


def joined(*phases):
    return Labelled(*(np.concatenate(parts) for parts in zip(*phases, strict=True)))


def fit(made, *phases):
    """Fit the last of the phases: alone where sums are kept, else beside what is stored of those before."""
    made.fit(phases[-1] if made.keeps_sums else joined(*phases))


def fitted(name, *phases):
    made = head(name)
    for number in range(len(phases)):
        fit(made, *phases[: number + 1])
    return made


@pytest.fixture(params=sorted(HEADS))
def name(request):
    return request.param


def test_classes_that_are_far_apart_are_told_apart_over_phases_with_labels_in_any_order(name):
    made = fitted(name, examples(70, -3), examples(12), examples(5))
    test = examples(5, 12, 70, -3, seed=1)
    assert made.classes == (-3, 5, 12, 70)
    predicted = made.predict(test.features)
    assert predicted.dtype == np.int64
    assert (predicted == test.labels).mean() > 0.97  # of classes that are ten standard deviations apart


def test_one_class_in_the_first_phase_is_all_that_is_predicted_until_there_is_another(name):
    made, first, second = head(name), examples(12), examples(5)
    made.fit(first)
    assert made.predict(examples(5, 12).features).tolist() == [12] * 60
    fit(made, first, second)
    assert (made.predict(examples(5, 12, seed=1).features) == examples(5, 12, seed=1).labels).all()


def test_an_old_class_without_exemplars_is_lost_only_to_a_head_that_is_refitted(name):
    made = head(name)
    made.fit(examples(70, -3))
    made.fit(examples(12, 5))
    assert made.classes == ((-3, 5, 12, 70) if made.keeps_sums else (5, 12))


def test_a_class_that_was_never_seen_is_predicted_as_one_that_was(name):
    made = fitted(name, examples(70, -3))
    assert set(made.predict(examples(12).features).tolist()) <= {70, -3}


def test_a_phase_without_new_examples_leaves_what_was_known(name):
    made, both = head(name), examples(70, -3)
    made.fit(both)
    expected = made.predict(both.features)
    made.fit(NONE)
    assert (made.predict(both.features) == expected).all()


def test_the_same_calls_give_the_same_predictions_and_state(name):
    phases = [examples(70, -3, number=9), examples(12, number=7)]
    rows = np.random.default_rng(5).normal(size=(200, DIM)).astype(np.float32)
    one, two = fitted(name, *phases), fitted(name, *phases)
    assert (one.predict(rows) == two.predict(rows)).all()
    assert {key: value.tobytes() for key, value in one.state().items()} == {
        key: value.tobytes() for key, value in two.state().items()
    }


def test_a_head_goes_on_from_its_state_as_if_it_had_never_stopped(name):
    first, second = examples(70, -3, number=9), examples(12, number=7)
    going, resumed = fitted(name, first), head(name)
    resumed.load(going.state())
    assert resumed.classes == going.classes
    assert (resumed.predict(second.features) == going.predict(second.features)).all()
    for made in (going, resumed):
        fit(made, first, second)
    rows = np.random.default_rng(5).normal(size=(200, DIM)).astype(np.float32)
    assert (resumed.predict(rows) == going.predict(rows)).all()
    assert {key: value.tobytes() for key, value in resumed.state().items()} == {
        key: value.tobytes() for key, value in going.state().items()
    }


def test_a_state_is_sums_or_what_is_predicted_by_and_nothing_before_the_first_fit(name):
    made = head(name)
    assert (made.state(), kept(made)) == ({}, 0)
    made.fit(examples(70, -3))
    fit(made, examples(70), examples(12))
    values = {"logistic": 2 * (DIM + 1), "lda": 2 * (DIM + 1), "nearest_exemplar_mean": 2 * DIM}
    values |= {"nearest_mean": 3 * DIM, "ranpac": 3 * 40 + 40 * 41 // 2}
    values |= dict.fromkeys(["ridge", "slda"], 3 * 7 + 7 * 8 // 2)
    others = {"logistic": 2, "lda": 2, "nearest_exemplar_mean": 2, "nearest_mean": 3, "ridge": 3, "slda": 3}  # classes
    others |= {"ranpac": 3 + 3 + 1}  # projection, strength
    assert kept(made) == 4 * values[name] + 8 * others[name]


def test_a_state_is_a_copy(name):
    made = fitted(name, examples(70, -3))
    for array in made.state().values():
        array[...] = 0
    assert (made.predict(examples(70).features) == 70).all()


def test_an_empty_state_makes_a_head_new(name):
    made = fitted(name, examples(70, -3))
    made.load({})
    assert (made.classes, kept(made)) == ((), 0)
    made.fit(Labelled(np.eye(3, dtype=np.float32), np.arange(3)))  # of another width


def test_a_head_that_knows_nothing_says_so(name):
    with pytest.raises(DataError, match="knows no class; fit it"):
        head(name).predict(np.zeros((1, DIM), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_and_nothing_is_learnt(name, value):
    made, good = head(name), examples(70, -3)
    wrong = good.features.copy()
    wrong[[4, 9], 1] = value
    with pytest.raises(DataError, match=r"features of examples: .* in 2 rows, first 4"):
        made.fit(Labelled(wrong, good.labels))
    assert made.classes == ()
    made.fit(good)
    with pytest.raises(DataError, match="NaN or infinity in 2 rows"):
        made.predict(wrong)


def test_features_of_another_width_are_refused_at_every_call(name):
    made, good = fitted(name, examples(70, -3)), examples(12)
    narrow = Labelled(good.features[:, :4], good.labels)
    before = made.predict(good.features)
    for call in (
        lambda: made.fit(narrow),
        lambda: made.predict(narrow.features),
    ):
        with pytest.raises(DataError, match="expected features of 6 values, as before, got 4"):
            call()
    assert (made.predict(good.features) == before).all()


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (np.zeros(3, np.float32), np.zeros(3, np.int64)),
        (np.zeros((3, DIM), np.int64), np.zeros(3, np.int64)),
        (np.zeros((3, DIM), np.float32), np.zeros(2, np.int64)),
        (np.zeros((3, DIM), np.float32), np.zeros(3, np.float32)),
        (np.zeros((3, DIM), np.float32), np.zeros((3, 1), np.int64)),
    ],
)
def test_arrays_that_are_no_labelled_features_are_refused(name, features, labels):
    with pytest.raises(DataError, match="expected"):
        head(name).fit(Labelled(features, labels))


def test_no_rows_are_predicted_as_no_classes(name):
    made = fitted(name, examples(70, -3))
    assert made.predict(np.zeros((0, DIM), np.float32)).tolist() == []


@pytest.mark.parametrize("name", sorted(name for name in HEADS if HEADS[name].keeps_sums))
def test_a_state_that_is_damaged_or_of_another_head_is_refused_and_changes_nothing(name):
    made, good = fitted(name, examples(70, -3)), fitted(name, examples(12, 5)).state()
    wrong = [
        {"means": np.zeros(3)},
        {**good, "classes": good["classes"][::-1]},
        {**good, "classes": good["classes"].astype(np.int32)},
        {**good, "class_sums": good["class_sums"][:, :-1]} if "gram" in good else {**good, "class_sums": np.zeros(3)},
        {**good, "class_sums": good["class_sums"] * np.float32(np.nan)},
    ]
    if "gram" in good:
        wrong.append({**good, "gram": good["gram"][:-1]})
    for state in wrong:
        with pytest.raises(DataError, match="state"):
            made.load(state)
    assert made.classes == (-3, 70)
    assert (made.predict(examples(70).features) == 70).all()


def test_features_whose_sums_overflow_are_refused_and_nothing_is_learnt(name):
    made, good = head(name), examples(70, -3)
    huge = Labelled(good.features * np.float32(1e30), good.labels)
    with pytest.raises(DataError, match="too large"):
        made.fit(huge)
    assert kept(made) == 0
    made.fit(good)
    with pytest.raises(DataError, match="too large"):
        made.predict(huge.features)
    with pytest.raises(DataError, match="64 bits with a sign"):
        made.fit(Labelled(good.features, good.labels.astype(np.uint64) + np.uint64(2**63)))


def test_the_options_of_heads_are_checked():
    for name, options in {
        "logistic": [{"C": 0}, {"C": "much"}, {"tol": -1.0}, {"max_iter": 0}],
        "ridge": [{"strength": 0}, {"strength": np.inf}, {"balanced": "no"}],
        "ranpac": [{"projection": 0}, {"seed": -1}, {"projection": 2.5}],
        "nearest_mean": [{"strength": 1}],
        "cosine": [{}],
    }.items():
        for given in options:
            with pytest.raises(SchemaError):
                HEADS.make(name, **given)
