"""Advice: which recipes are measured, which of them is best, and what a run takes by itself."""

import dataclasses

import numpy as np
import pytest

from exmem.errors import BudgetTooSmallError, DataError, SchemaError
from exmem.recipes import Recipe
from exmem.registry import Part
from exmem.train import advice
from exmem.train.advice import advise, best_of, candidates, choose_recipe
from exmem.train.data import ImageText
from exmem.train.methods.fitting import head_bytes
from exmem.train.stored_sample import Measured, Policy
from tests.tiny import SIDE, config_of

FEATURES = [*(f"features_{bits}_bits" for bits in (1, 2, 4, 8)), "features_24_bytes", "features_48_bytes"]


def stage(_text, _total):
    return lambda count: None


def measured(name, *accuracies, step_ms=1.0, size=50.0):
    return Measured(Recipe(name=name), 1_000, 3 * len(accuracies), size, accuracies, step_ms)


def test_the_best_is_the_most_accurate_and_of_equals_the_surest_then_the_smaller_whatever_time_it_takes():
    large, small = measured("large", 0.5, 0.7, size=90.0), measured("small", 0.7, 0.5, size=20.0, step_ms=9.0)
    better, none = measured("better", 0.61, size=99.0), measured("none", size=1.0)
    assert best_of([none, large, small]) == small
    assert best_of([none, large, small, better]) == better
    assert best_of([small._replace(step_ms=1.0), small]).step_ms == 1.0  # the first
    assert best_of([small, large._replace(certainty=0.5)]).recipe.name == "large"
    assert best_of([better, large._replace(certainty=0.5)]) == better
    assert best_of([none, measured("wrong", 0.0)]).recipe.name == "wrong"


def test_where_nothing_fits_there_is_no_best_and_the_smallest_is_named():
    with pytest.raises(BudgetTooSmallError, match=r"1,000 B: no exemplar .* those of small are .* of 40 bytes"):
        best_of([measured("large"), measured("small", size=40.0)])


def test_hidden_tokens_are_candidates_as_far_as_an_image_has_patches(backbone):
    names = [recipe.name for recipe in candidates(backbone())]
    assert [name for name in names if name.startswith("hidden")] == ["hidden_4", "hidden_8"]  # of 16 patches
    assert names[-7:] == ["text", *FEATURES]


def test_each_recipe_is_measured_at_each_budget_and_one_that_cannot_be_is_told_and_left_out(backbone, data):
    wrong, good = Recipe.of("features").refined(name="codes", codec="pq"), Recipe.of("half_jpeg")
    told, stages = [], []

    def begin(text, total):
        stages.append((text, total))
        return lambda count: None

    found = list(advise(backbone(), data[0], [wrong, good], [8_000, 16_000], seed=1, stage=begin, tell=told.append))
    assert [[(one.recipe, one.max_bytes) for one in ones] for ones in found] == [[(good, 8_000), (good, 16_000)]]
    (line,) = told
    assert line.startswith("codes is left out: exmem.pq: training needs 256 finite tokens or more, got 32")
    assert stages == [("one pass of the backbone", 32), ("codes", 32), ("half_jpeg", 32)]


def test_a_recipe_that_cannot_be_replayed_is_told_and_left_out(backbone, data, monkeypatch):
    def refused(_stored, _budget, **_options):
        raise SchemaError("replay needs a mask token")

    monkeypatch.setattr("exmem.train.stored_sample.StoredSample.measure", refused)
    told = []
    assert not list(advise(backbone(), data[0], [Recipe.of("half_jpeg")], [16_000], stage=stage, tell=told.append))
    assert told == ["half_jpeg is left out: replay needs a mask token"]


def test_classes_that_nothing_can_be_told_of_are_left_out_by_name(backbone, data):
    train, _ = data
    lone, told = train.subset([*range(12), 16, 24]), []
    recipe = Recipe.of("features").refined(codec="lossless")
    (found,) = advise(backbone(), lone, [recipe], [80_000], stage=stage, tell=told.append)
    assert [line.partition(",")[0] for line in told] == ["2 classes with one example are left out"]
    assert "['class2', 'class3']" in told[0]
    (expected,) = advise(backbone(), train.subset([*range(12)]), [recipe], [80_000], stage=stage, tell=pytest.fail)
    assert found[0].accuracies == expected[0].accuracies
    with pytest.raises(DataError, match="expected two of two examples or more"):
        list(advise(backbone(), train.subset([*range(8)]), [], [8_000], stage=stage, tell=print))


def test_a_run_chooses_by_its_first_phase_a_share_of_what_its_head_leaves(backbone, data, monkeypatch):
    train, _ = data
    asked = {}

    def record(model, first, recipes, budgets, *, policy, seed, **_options):
        asked.update(labels=set(first.labels.tolist()), budgets=budgets, classes=policy.classes, seed=seed)
        return iter([[measured("one", 0.3)], [measured("two", 0.4)]])

    monkeypatch.setattr(advice, "advise", record)
    config = dataclasses.replace(config_of(), seed=5)
    assert choose_recipe(config, backbone(), train, stage, print).recipe.name == "two"
    assert len(asked.pop("labels")) == 2  # of four
    assert asked == {"budgets": [40_000], "classes": 4, "seed": 5}
    ridge = config_of(method={"head": {"name": "ridge"}}, max_bytes="200kB", loop={"epochs": 1})
    choose_recipe(ridge, backbone(), train, stage, print)
    kept = head_bytes(ridge.method.head, width=backbone().feature_dim, classes=4)
    assert asked["budgets"] == [200_000 - kept]
    with pytest.raises(BudgetTooSmallError, match="head 'ridge' keeps"):
        choose_recipe(dataclasses.replace(ridge, max_bytes="9kB"), backbone(), train, stage, print)


def test_a_recipe_that_does_not_go_with_the_options_of_a_run_is_told_and_not_measured(backbone, data, monkeypatch):
    monkeypatch.setattr(
        advice, "advise", lambda _model, _data, recipes, *_budgets, **_: [[measured(one.name, 0.5)] for one in recipes]
    )
    told = []
    tuned = config_of(tuner={"phases": "all"})
    assert choose_recipe(tuned, backbone(), data[0], stage, told.append).recipe.name == "half_jpeg"
    assert [line.partition(" ")[0] for line in told] == FEATURES
    assert "which tuning makes stale" in told[0]


def test_where_no_recipe_could_be_measured_it_is_told():
    with pytest.raises(SchemaError, match="no recipe could be measured"):
        best_of([])


def test_images_without_texts_and_of_any_size_are_measured(backbone, data):
    train, _ = data
    model = backbone()
    model.restrict("image")
    plain = ImageText(train.paths, [""] * len(train), train.labels, train.class_names)
    found = list(advise(model, plain, candidates(model), [30_000], stage=stage, tell=pytest.fail))
    assert {ones[0].recipe.level for ones in found} == {"pixels", "hidden", "features"}
    assert train.image(0, SIDE).shape == (SIDE, SIDE, 3) != np.shape(train.image(0, 48))


@pytest.mark.parametrize(
    ("options", "expected", "words"),
    [
        ({"quota": "counts", "selection": "k_centre"}, Policy(Part("k_centre"), "counts", classes=4), []),
        ({"quota": "frequency"}, Policy(weights={1: 8, 3: 8}, classes=4), []),
        ({"selection": "entropy"}, Policy(classes=4), ["selection 'entropy' looks at a trained head"]),
    ],
)
def test_a_probe_takes_exemplars_as_the_run_does(backbone, data, monkeypatch, options, expected, words):
    asked, told = {}, []

    def record(*_arguments, policy, **_options):
        asked["policy"] = policy
        return iter([[measured("one", 0.3)]])

    monkeypatch.setattr(advice, "advise", record)
    choose_recipe(config_of(**options), backbone(), data[0], stage, told.append)
    policy = asked["policy"]
    assert policy._replace(weights=dict(policy.weights)) == expected._replace(weights=dict(policy.weights))
    assert sorted(policy.weights.values()) == sorted(expected.weights.values())
    assert [line.partition(",")[0] for line in told if line.startswith("selection")] == words
