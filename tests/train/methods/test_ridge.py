import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from exmem.errors import DataError
from exmem.train.methods import Labelled
from exmem.train.methods.ridge import Ridge


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), [4, 30, 8, 15, 3, 40])
    centres = rng.normal(size=(6, 5))
    return Labelled((centres[labels] + rng.normal(size=(100, 5)) + 2).astype(np.float32), labels)


def phases(data, *splits):
    head = Ridge(**splits[0])
    for part in splits[1:]:
        head.fit(Labelled(data.features[part], data.labels[part]))
    return head


@pytest.mark.parametrize("strength", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_phase_by_phase_it_is_the_closed_form_on_everything(data, strength, balanced):
    labels = data.labels
    head = phases(
        data, {"strength": strength, "balanced": balanced}, labels < 2, labels == 5, (labels > 1) & (labels < 5)
    )
    weights = 100 / np.bincount(labels)[labels] if balanced else None
    reference = Reference(alpha=strength).fit(data.features.astype(float), np.eye(6)[labels], sample_weight=weights)
    # float32 sums carry seven digits, and the Gram matrix has a condition of some hundreds.
    np.testing.assert_allclose(head._weights[:, :-1], reference.coef_, atol=1e-4)
    np.testing.assert_allclose(head._weights[:, -1], reference.intercept_, atol=1e-4)
    assert (head.predict(data.features) == reference.predict(data.features).argmax(1)).all()


def test_a_class_that_comes_back_is_added_to_when_classes_are_not_balanced(data):
    even = np.arange(100) % 2 == 0
    parts, whole = phases(data, {"balanced": False}, even, ~even), phases(data, {"balanced": False}, slice(None))
    np.testing.assert_allclose(parts._weights, whole._weights, atol=1e-5)


def test_a_class_that_comes_back_is_refused_when_classes_are_balanced(data):
    head = phases(data, {"balanced": True}, data.labels < 3)
    with pytest.raises(DataError, match=r"classes \[2\] came in an earlier phase.*balanced=False"):
        head.fit(Labelled(data.features[data.labels == 2], data.labels[data.labels == 2]))
    assert head.classes == (0, 1, 2)


def test_a_strength_that_float32_cannot_resolve_is_refused_and_nothing_is_learnt():
    rng = np.random.default_rng(0)
    head = Ridge(strength=1e-12)
    few = Labelled(rng.normal(size=(4, 50)).astype(np.float32), np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match="singular in float32 with a penalty of 1e-12; raise it"):
        head.fit(few)
    assert head.classes == ()
