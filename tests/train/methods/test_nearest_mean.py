import numpy as np
import torch

from exmem.train.learner import ClassMeans
from exmem.train.methods import HEADS, Labelled


def test_the_nearest_mean_worked_by_hand():
    head = HEADS.make("nearest_mean")
    head.fit(Labelled(np.array([[3, 0], [0, 2]], np.float32), np.array([7, 2])))
    head.fit(Labelled(np.array([[0, 5], [4, 3]], np.float32), np.array([7, 9])))
    # Class 7 came twice and points to (1, 1), whatever the lengths; 2 to (0, 1); 9 to (4, 3).
    assert head.state()["class_sums"].round(6).tolist() == [[0, 1], [1, 1], [np.float32(0.8), np.float32(0.6)]]
    assert head.predict(np.array([[1, 1], [1, 9], [9, 1]], np.float32)).tolist() == [7, 2, 9]


def test_it_is_the_class_mean_of_the_learner_when_each_class_comes_once():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(90, 8)).astype(np.float32), np.arange(90) % 9
    head = HEADS.make("nearest_mean")
    for phase in (labels < 4, labels >= 4):
        head.fit(Labelled(features[phase], labels[phase]))
    means = ClassMeans.of(torch.from_numpy(features), torch.from_numpy(labels))
    assert (head.predict(features) == means.predict(torch.from_numpy(features)).numpy()).all()


def test_features_of_nothing_but_zeros_have_a_class_too():
    head = HEADS.make("nearest_mean")
    head.fit(Labelled(np.array([[0, 0], [1, 0]], np.float32), np.array([4, 5])))
    assert head.predict(np.zeros((1, 2), np.float32)).tolist() == [4]
