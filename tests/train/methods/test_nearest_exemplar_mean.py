import numpy as np
import torch

from exmem.train.learner import ClassMeans
from exmem.train.methods import HEADS, Labelled


def test_the_mean_of_the_exemplars_that_are_held_now_decides_worked_by_hand():
    head = HEADS.make("nearest_exemplar_mean")
    head.fit(Labelled(np.array([[3, 0], [0, 2]], np.float32), np.array([7, 2])))
    assert head.predict(np.array([[1, 9], [9, 1]], np.float32)).tolist() == [2, 7]
    head.fit(Labelled(np.array([[3, 0], [0, 5], [4, 3]], np.float32), np.array([7, 7, 9])))
    # Class 2 is held no more, 7 points to (1, 1) whatever the lengths, and 9 to (4, 3).
    assert head.classes == (7, 9)
    assert head.predict(np.array([[1, 9], [9, 1]], np.float32)).tolist() == [7, 9]
    assert not head.keeps_sums


def test_it_is_the_class_mean_of_the_learner():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(90, 8)).astype(np.float32), np.arange(90) % 9
    head = HEADS.make("nearest_exemplar_mean")
    head.fit(Labelled(features, labels))
    means = ClassMeans.of(torch.from_numpy(features), torch.from_numpy(labels))
    assert (head.predict(features) == means.predict(torch.from_numpy(features)).numpy()).all()
