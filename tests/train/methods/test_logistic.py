import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from exmem.train.methods import HEADS, Labelled


def test_classes_count_the_same_however_many_examples_they_have():
    # Class 0 has 300 examples about -1, class 1 has 3 about 1: balanced, the border is near 0.
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(-1, 1, 300), [0.0, 1.0, 2.0]]).astype(np.float32)[:, None]
    head = HEADS.make("logistic", C=1.0)
    head.fit(Labelled(features, np.repeat([0, 1], [300, 3])))
    assert head.predict(np.array([[-0.3], [0.3]], np.float32)).tolist() == [0, 1]


def test_a_fit_that_did_not_converge_warns():
    rng = np.random.default_rng(0)
    head = HEADS.make("logistic", C=1e3, max_iter=2)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        head.fit(Labelled(rng.normal(size=(90, 5)).astype(np.float32), np.arange(90) % 3))
    assert head.classes == (0, 1, 2)


def test_probabilities_are_of_the_classes_in_order_and_the_likeliest_is_predicted():
    rng = np.random.default_rng(1)
    examples = Labelled(rng.normal(size=(60, 4)).astype(np.float32), np.repeat([9, 2, 5], 20))
    head = HEADS.make("logistic")
    head.fit(examples)
    found = head.probabilities(examples.features)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (np.array(head.classes)[found.argmax(1)] == head.predict(examples.features)).all()
    head.fit(Labelled(examples.features[:3], np.full(3, 7)))
    assert head.probabilities(examples.features).tolist() == [[1.0]] * 60
