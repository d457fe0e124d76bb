import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis as Reference

from exmem.errors import DataError, SchemaError
from exmem.train.methods import Labelled
from exmem.train.methods.slda import Slda


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), [4, 30, 8, 15, 43])
    spread = rng.normal(size=(6, 6))
    features = rng.normal(size=(5, 6))[labels] * 2 + rng.normal(size=(100, 6)) @ spread + 3
    return Labelled(features.astype(np.float32), labels)


def fitted(data, shrinkage, *parts):
    head = Slda(shrinkage=shrinkage)
    for part in parts:
        head.fit(Labelled(data.features[part], data.labels[part]))
    return head


@pytest.mark.parametrize("shrinkage", [1e-4, 0.1, 1.0])
def test_phase_by_phase_it_is_discriminant_analysis_of_everything(data, shrinkage):
    odd = np.arange(100) % 2 == 1
    head = fitted(data, shrinkage, (data.labels < 3) & odd, data.labels >= 3, (data.labels < 3) & ~odd)
    shares = np.bincount(data.labels) / 100
    # scikit-learn weights the covariances of the classes by their priors, which then are taken out of the scores again.
    reference = Reference(solver="lsqr", shrinkage=shrinkage, priors=shares).fit(data.features, data.labels)
    np.testing.assert_allclose(head._weights[:, :-1], reference.coef_, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(head._weights[:, -1], reference.intercept_ - np.log(shares), rtol=2e-3, atol=2e-4)


def test_one_example_a_class_is_the_nearest_mean():
    head = fitted(Labelled(np.eye(3, 5, dtype=np.float32), np.arange(3)), 1e-4, slice(None))
    assert head.predict(np.eye(3, 5, dtype=np.float32) * 0.9).tolist() == [0, 1, 2]


@pytest.mark.parametrize("shrinkage", [0, -0.1, 1.5, float("nan"), "much"])
def test_a_shrinkage_that_is_none_is_refused(shrinkage):
    with pytest.raises(SchemaError, match="shrinkage"):
        Slda(shrinkage=shrinkage)


def test_a_state_without_counts_is_refused_and_nothing_changes(data):
    head = fitted(data, 0.1, slice(None))
    state, before = head.state(), head.predict(data.features)
    state["class_sums"][2, -1] = 0
    with pytest.raises(DataError, match="examples of each class"):
        head.load(state)
    assert (head.predict(data.features) == before).all()
