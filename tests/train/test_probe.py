"""The frozen probe: what it says fits is what a memory holds, and its accuracies are those of a fit by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from exmem import ExemplarMemory
from exmem.errors import CodecError, SchemaError
from exmem.recipes import BoundRecipe, Recipe
from exmem.registry import Part
from exmem.tokens.tensors import TensorBatch
from exmem.train.advice import candidates
from exmem.train.hidden import KeptHidden, features_of
from exmem.train.learner import Learner
from exmem.train.methods import HEADS, Labelled
from exmem.train.methods.fitting import head_bytes
from exmem.train.probe import Probe
from exmem.train.samples import chosen_rows, sample_rows
from exmem.train.stored_sample import Policy
from exmem.train.storing import rank_examples
from exmem.train.tuners.lora import Lora
from tests.backbones.models import load
from tests.tiny import SIDE

FEATURES, RAW = Recipe.of("features").refined(codec="lossless"), Recipe.of("raw")
HIDDEN = Recipe.of("hidden").refined(codec="lossless", keep="top_k:k=4")


def nothing(_count):
    pass


def measure(probe, recipe, budgets, **options):
    """Store the sample once, and measure it at each budget."""
    stored = probe.store(recipe)
    return [stored.measure(budget, seed=3, **options) for budget in budgets]


@pytest.fixture(scope="module")
def train(data):
    return data[0]


@pytest.fixture(scope="module")
def probe(backbone, train):
    return Probe(backbone(), train, np.arange(len(train)), seed=3, advance=nothing)


@pytest.fixture(scope="module")
def by_hand(backbone, train):
    """A learner with adapters that change nothing, tokens of all examples, features and exemplars of a recipe."""

    def make(recipe):
        learner, rows = Learner(backbone(), Lora(rank=1, alpha=1)), np.arange(len(train))
        bound = BoundRecipe(recipe.refined(name=""), learner.backbone, seed=3)  # a name takes bytes
        images = train.images(rows, SIDE)
        tokens = learner.backbone.tokens(images, train.texts)
        hidden = learner.backbone.embed(TensorBatch.from_numpy(tokens)).to(torch.float16)  # as a run keeps it
        features = features_of(learner, KeptHidden(hidden, torch.device("cpu")), rows).numpy()
        ranks = rank_examples(features, train.labels, selection=Part("herding"), seed=[3], values=None)
        return (
            bound,
            features,
            bound.make(
                images,
                train.texts,
                train.labels,
                -ranks.astype(float),
                hidden=hidden.to(torch.float32),
                features=features,
            ),
        )

    return make


def held_by(folder, bound, exemplars, budget):
    """What a memory of a budget takes of exemplars: which, and bytes of each."""
    with bound.create_memory(folder, max_bytes=budget, samples=exemplars, durable=False) as memory:
        encoded = memory.encode(exemplars)
        slots = memory.add(encoded).slots
        memory.commit()
        assert memory.used_bytes <= budget
        return np.flatnonzero(slots >= 0), encoded.sizes


@pytest.mark.parametrize(
    "recipe", [RAW, FEATURES, Recipe.of("half_jpeg"), Recipe.of("text"), HIDDEN], ids=lambda recipe: recipe.name
)
@pytest.mark.parametrize("budget", [9_000, 14_000, 19_000])
def test_the_exemplars_that_fit_are_those_that_a_memory_of_the_budget_admits(tmp_path, probe, by_hand, recipe, budget):
    bound, _, exemplars = by_hand(recipe)
    held, sizes = held_by(tmp_path / "memory", bound, exemplars, budget)
    (measured,) = measure(probe, recipe, [budget])
    assert measured.max_bytes == budget
    if len(held) == len(exemplars):
        assert measured.exemplars >= len(exemplars)
    else:
        assert measured.exemplars == len(held) > 0
    assert 0 < measured.exemplar_bytes <= sizes[held].mean(), "what is put together takes less than each alone"


@pytest.mark.parametrize("budget", [9_000, 100_000])
def test_the_accuracy_of_a_fold_is_that_of_a_fit_by_hand_on_what_a_memory_holds(
    tmp_path, probe, by_hand, train, budget
):
    (measured,) = measure(probe, FEATURES, [budget])
    bound, features, exemplars = by_hand(FEATURES)
    for number, accuracy in enumerate(measured.accuracies):
        draws = np.random.default_rng([3, number]).random(len(train))
        held_out = np.concatenate([8 * label + np.argsort(draws[8 * label : 8 * label + 8])[:2] for label in range(4)])
        others = np.setdiff1d(np.arange(len(train)), held_out)
        held, _ = held_by(tmp_path / str(number), bound, [exemplars[row] for row in others], budget)
        assert (len(held) == 24) == (budget > 9_000)
        model = LogisticRegression(C=0.02, tol=1e-3, max_iter=300, class_weight="balanced")
        model.fit(features[others[held]], train.labels[others[held]])
        expected = (model.predict(features[held_out]) == train.labels[held_out]).mean()
        assert accuracy == expected
    assert len(measured.accuracies) == 10  # of 8 tested on, each
    assert 0 < measured.certainty < 1
    assert measured.accuracy == pytest.approx(np.mean(measured.accuracies))


def test_pixels_and_hidden_tokens_that_are_stored_whole_are_worth_as_much_as_features(probe):
    whole = HIDDEN.refined(keep="top_k:k=16")
    (pixels,), (hidden,), (features,) = (measure(probe, recipe, [1_000_000]) for recipe in (RAW, whole, FEATURES))
    assert pixels.accuracies == hidden.accuracies == features.accuracies
    assert pixels.accuracy > 0.5  # of four classes that differ in colour


def test_a_budget_without_room_for_an_exemplar_or_the_tables_holds_none_and_is_no_error(probe):
    trained = Recipe.of("features").refined(codec="scalar:bits=2")
    for recipe, budget in ((RAW, 8_000), (trained, 5_000), (RAW, 0), (RAW, 1)):
        (measured,) = measure(probe, recipe, [budget])
        assert (measured.exemplars, measured.accuracies, measured.accuracy) == (0, (), 0.0)
        assert measured.exemplar_bytes > 0


def test_more_budget_never_holds_fewer(probe):
    budgets = [*range(5_000, 40_000, 5_000), 120_000, 250_000]
    for recipe in (RAW, FEATURES):
        counts = [one.exemplars for one in measure(probe, recipe, budgets)]
        assert counts == sorted(counts), recipe.name
        assert counts[-1] > 32  # more than the sample has


def test_the_same_seed_measures_the_same(backbone, train, probe):
    again = Probe(backbone(), train, np.arange(len(train)), seed=3, advance=nothing)
    for recipe in (Recipe.of("features"), Recipe.of("masked").refined(scorer="random")):
        one, two = (measure(each, recipe, [9_000, 20_000]) for each in (probe, again))
        assert [each._replace(step_ms=0) for each in one] == [each._replace(step_ms=0) for each in two]


def test_a_memory_of_more_classes_has_the_share_of_those_that_are_there(backbone, train, probe):
    rows = np.flatnonzero(train.labels < 2)
    two = Probe(backbone(), train, rows, seed=3, advance=nothing)
    (alone,), (whole,) = (measure(each, RAW, [14_000]) for each in (two, probe))
    (part,) = measure(two, RAW, [14_000], policy=Policy(classes=4))
    assert 0 < whole.exemplars < 32
    assert part.exemplars == pytest.approx(whole.exemplars, abs=2)  # of two classes, for four
    assert alone.exemplars > part.exemplars / 2


def test_a_set_of_its_own_is_tested_on_whole(backbone, data):
    train, test = data
    probe = Probe(backbone(), train, np.arange(len(train)), test=test, seed=3, advance=nothing)
    for recipe in (FEATURES, HIDDEN):
        (measured,) = measure(probe, recipe, [1_000_000])
        (accuracy,) = measured.accuracies
        assert accuracy * len(test) == pytest.approx(round(accuracy * len(test)))
        assert accuracy > 0.5


def test_advance_is_told_each_example_once(backbone, train):
    passed, made = [], []
    probe = Probe(backbone(), train, np.arange(0, 32, 2), advance=passed.append)
    probe.store(RAW, made.append)
    assert sum(passed) == sum(made) == 16


def test_a_recipe_that_a_backbone_cannot_make_or_a_codec_that_cannot_be_trained_is_an_error(backbone, train):
    probe = Probe(backbone(), train, np.array([0, 1, 8, 9]), advance=nothing)
    with pytest.raises(CodecError, match="training needs 256 finite tokens or more, got 4"):
        measure(probe, FEATURES.refined(codec="pq"), [20_000])
    with pytest.raises(SchemaError, match="measures patches, not hidden tokens"):
        measure(probe, HIDDEN.refined(keep="fit_bytes:max_bytes=100"), [20_000])


@pytest.mark.parametrize(
    ("kind", "seen"),
    [("bert", ()), ("clip", ()), ("joint", ("image",)), ("joint", ("text",)), ("vilt", ()), ("vit", ())],
)
def test_every_candidate_of_every_family_can_be_measured(written, train, kind, seen):
    backbone = load(kind, written[kind], size=SIDE, blocks=1)
    if seen:
        backbone.restrict(*seen)
    recipes = candidates(backbone)
    levels = {recipe.level for recipe in recipes}
    sees = backbone.token_specs()
    assert "features" in levels
    assert ("pixels" in levels) == ("image" in sees)
    assert ("none" in levels) == ("text" in sees)
    assert ("hidden" in levels) == ("image" in sees and kind != "vilt")
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    probe = Probe(backbone, train, sample_rows(train.labels, most=32, seed=0), advance=nothing)
    for recipe in recipes:
        (measured,) = measure(probe, recipe, [1_000_000])
        assert measured.exemplars >= 32
        assert len(measured.accuracies) == 10


def test_a_sample_has_as_many_of_each_class_as_can_be_and_two_at_least():
    labels = np.repeat([0, 1, 2], [50, 3, 20])
    rows = sample_rows(labels, most=30, seed=0)
    assert np.bincount(labels[rows]).tolist() == [10, 3, 10]
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, sample_rows(labels, most=30, seed=0))
    assert not np.array_equal(rows, sample_rows(labels, most=30, seed=1))
    assert np.bincount(labels[sample_rows(labels, most=3, seed=0)]).tolist() == [2, 2, 2]


def test_which_exemplars_a_memory_takes_follows_the_policy(backbone, train, monkeypatch):
    asked = {"quota": set(), "weights": []}
    create, weigh = ExemplarMemory.create, ExemplarMemory.weigh

    def created(place, *, quota="bytes", **options):
        asked["quota"].add(quota)
        return create(place, quota=quota, **options)

    def weighed(memory, weights):
        asked["weights"].append(dict(weights))
        weigh(memory, weights)

    def ranked(*arguments, selection, **options):
        asked["selection"] = selection
        return rank_examples(*arguments, selection=selection, **options)

    monkeypatch.setattr("exmem.train.stored_sample.rank_examples", ranked)
    policy = Policy(Part("random"), "counts", weights={0: 5, 1: 1, 2: 1, 3: 1})
    probe = Probe(backbone(), train, np.arange(len(train)), seed=3, advance=nothing)
    monkeypatch.setattr(ExemplarMemory, "create", created)
    monkeypatch.setattr(ExemplarMemory, "weigh", weighed)
    (one,) = measure(probe, FEATURES, [9_000], policy=policy)
    assert 0 < one.held < one.sample == len(train)
    assert asked == {"quota": {"bytes", "counts"}, "weights": 11 * [policy.weights], "selection": Part("random")}


def test_a_head_that_keeps_sums_needs_no_exemplar_and_its_bytes_count(backbone, data, by_hand):
    train, test = data
    probe = Probe(backbone(), train, np.arange(len(train)), test=test, seed=3, advance=nothing)
    _, features, _ = by_hand(FEATURES)
    policy = Policy(head=Part("nearest_mean"))
    head = HEADS.make("nearest_mean")
    head.fit(Labelled(features, train.labels))
    kept = head_bytes(policy.head, width=features.shape[1], classes=4)
    tested = features_of(probe.learner, probe.test.hidden, probe.test.rows).numpy()
    (none,) = measure(probe, Recipe.of("none"), [kept], policy=policy)
    assert none.accuracy == (head.predict(tested) == test.labels).mean() > 0.25
    assert (none.held, none.disk_bytes, none.head_bytes) == (0, 0, kept)
    (too_small,) = measure(probe, Recipe.of("none"), [kept - 1], policy=policy)
    assert too_small.accuracies == ()
    (beside,) = measure(probe, RAW, [14_000], policy=policy)
    (alone,) = measure(probe, RAW, [14_000 - kept])
    assert beside.accuracy == none.accuracy
    assert (beside.head_bytes, beside.held) == (kept, alone.held)
    assert beside.disk_bytes + kept <= 14_000
    with pytest.raises(SchemaError, match="'none' stores nothing, and head 'logistic' carries nothing"):
        measure(probe, Recipe.of("none"), [20_000])


@pytest.mark.parametrize("recipe", [Recipe.of("half_jpeg"), RAW, HIDDEN, FEATURES], ids=lambda recipe: recipe.name)
def test_what_is_tested_on_may_go_through_a_memory_too(backbone, data, recipe):
    train, test = data
    policy = Policy(tests_stored=True)
    probe = Probe(backbone(), train, np.arange(len(train)), test=test, seed=3, advance=nothing)
    (one,) = measure(probe, recipe, [1_000_000], policy=policy)
    again = Probe(backbone(), train, np.arange(len(train)), test=train, seed=3, advance=nothing)
    (same,) = measure(again, recipe, [1_000_000], policy=policy)
    assert len(one.as_stored) == 1
    if recipe.name != "half_jpeg":  # what loses nothing tests the same
        assert one.as_stored == one.accuracies
    stored = again.store(recipe)
    head = LogisticRegression(C=0.02, tol=1e-3, max_iter=300, class_weight="balanced").fit(
        stored.features, train.labels
    )
    assert same.as_stored == ((head.predict(stored.features) == train.labels).mean(),)


def test_a_sample_that_is_stored_once_is_measured_by_any_rows_policy_and_seed(backbone, data):
    train, test = data
    probe = Probe(backbone(), train, np.arange(len(train)), test=test, seed=0, advance=nothing)
    stored = probe.store(FEATURES)
    for seed in (0, 1):
        rows = chosen_rows(train.labels, share=0.5, seed=seed)
        apart = Probe(backbone(), train, rows, test=test, seed=0, advance=nothing)
        for policy in (Policy(), Policy(Part("random")), Policy(ranked_form="stored"), Policy(quota="counts")):
            one = stored.measure(9_000, rows=rows, policy=policy, seed=seed)
            other = apart.store(FEATURES).measure(9_000, policy=policy, seed=seed)
            assert one._replace(step_ms=0) == other._replace(step_ms=0)
            assert 0 < one.held < one.sample == len(rows)
        held = stored.held(9_000, rows=rows, seed=seed)
        assert len(held) == stored.measure(9_000, rows=rows, seed=seed).held
        assert set(held.tolist()) <= set(rows.tolist())
    assert len(stored.held(10)) == 0
