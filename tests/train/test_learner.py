"""The model that learns: what is tuned, what a checkpoint holds, distillation, class means."""

import dataclasses

import numpy as np
import pytest
import torch

from exmem.errors import DataError
from exmem.masking.scorers import ClsAttention, GradAttention
from exmem.tokens.tensors import TensorBatch
from exmem.train.learner import ClassMeans, Learner
from exmem.train.losses import distillation
from exmem.train.method_config import MethodConfig
from exmem.train.tuners.lora import Lora
from tests.exemplars import crop
from tests.tiny import SIDE, load_joint


@pytest.fixture
def backbone(models):
    return load_joint(models)


def batch(backbone):
    images = np.stack([crop(seed, SIDE) for seed in range(4)])
    return TensorBatch.from_numpy(backbone.tokens(images, ["temple roof", "red leaf stone", "garden", ""]))


def learner_of(backbone, classes=(3, 5)):
    torch.manual_seed(0)
    learner = Learner(backbone, Lora(rank=2, alpha=4))
    learner.grow(classes)
    return learner


def step(learner, hidden, labels, *, method=MethodConfig(), teacher=None):  # noqa: B008 - immutable
    learner.zero_grad()
    loss = learner.loss(hidden, labels, method=method, teacher=teacher)
    loss.backward()
    return loss.item()


def test_gradients_reach_adapters_text_projection_and_head_and_nothing_else(backbone):
    learner = learner_of(backbone)
    hidden, labels = backbone.embed(batch(backbone)), torch.tensor([3, 5, 3, 5])
    trained = [value for value in learner.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01)
    for _ in range(3):  # LoRA starts at B = 0, the head at 0: A moves in the third step
        first = step(learner, hidden, labels)
        optimizer.step()
    touched = {name for name, value in learner.named_parameters() if value.grad is not None and value.grad.any()}
    expected = {name for name, _ in learner.named_parameters() if "lora_" in name or "text_in" in name}
    assert touched == expected | {"weight", "bias"}
    assert all(".1." in name for name in expected if "lora_" in name)  # the last of two blocks
    assert step(learner, hidden, labels) < first


def test_scores_come_from_the_tuned_attention(backbone):
    learner = learner_of(backbone)
    tokens = batch(backbone)
    before = ClsAttention()(backbone, tokens).scores["image"]
    frozen = ClsAttention(layers=(0,))(backbone, tokens).scores["image"]
    for name, value in learner.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.5)
    tuned = ClsAttention()(backbone, tokens).scores["image"]
    assert np.abs(tuned - before).max() > 1e-3
    np.testing.assert_array_equal(ClsAttention(layers=(0,))(backbone, tokens).scores["image"], frozen)


def test_a_checkpoint_brings_the_learner_back(models):
    one, two = learner_of(load_joint(models)), learner_of(load_joint(models))
    hidden, labels = one.backbone.embed(batch(one.backbone)), torch.tensor([3, 5, 3, 5])
    step(one, hidden, labels)
    with torch.no_grad():
        for value in one.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value))
    two.load((3, 5), one.tuned())
    torch.testing.assert_close(two(hidden), one(hidden), rtol=0, atol=0)
    one.grow((9,))
    assert one(hidden).shape == (4, 3)
    torch.testing.assert_close(one(hidden)[:, :2], two(hidden))
    assert one.targets(torch.tensor([9, 3])).tolist() == [2, 0]
    with pytest.raises(DataError, match="another model"):
        two.load((3, 5), one.tuned())


def test_distillation_pulls_towards_the_model_before(backbone):
    learner = learner_of(backbone)
    hidden, labels = backbone.embed(batch(backbone)), torch.tensor([3, 5, 3, 5])
    teacher = learner.tuned() | {"weight": torch.randn_like(learner.weight)}
    alone = step(learner, hidden, labels)
    both = step(learner, hidden, labels, method=MethodConfig(distill_weight=2.0), teacher=teacher)
    with torch.no_grad():
        before = learner.features(hidden) @ teacher["weight"].T
        expected = 2 * distillation(learner(hidden), before, temperature=2.0)
    assert both == pytest.approx(alone + float(expected), rel=1e-5)
    same = torch.randn(4, 3)
    assert float(distillation(same, same, temperature=2.0)) == pytest.approx(0, abs=1e-6)


def head_of(learner, weight, bias=0.0):
    with torch.no_grad():
        learner.weight.copy_(weight)
        learner.bias.fill_(bias)


def test_new_examples_of_an_asymmetric_loss_compete_with_new_classes_and_replayed_ones_with_all(backbone):
    learner = learner_of(backbone)
    learner.grow((9, 4))
    head_of(learner, torch.randn(4, backbone.feature_dim, generator=torch.Generator().manual_seed(0)))
    hidden, labels = backbone.embed(batch(backbone)), torch.tensor([9, 4, 4, 9])
    logits = learner(hidden).detach()
    targets = torch.tensor([2, 3, 3, 2])
    whole = torch.nn.functional.cross_entropy(logits, targets)
    among_new = torch.nn.functional.cross_entropy(logits[:, 2:], targets - 2)
    assert not torch.isclose(whole, among_new)
    for method, replayed, expected in (
        (MethodConfig(), False, whole),
        (MethodConfig(asymmetric=True), False, among_new),
        (MethodConfig(asymmetric=True), True, whole),
    ):
        found = learner.loss(hidden, labels, method=method, replayed=replayed)
        torch.testing.assert_close(found.detach(), expected)
    learner.zero_grad()
    learner.loss(hidden, labels, method=MethodConfig(asymmetric=True)).backward()
    assert not learner.weight.grad[:2].any(), "old classes are left alone"


def test_stored_logits_pull_those_of_classes_that_were_learnt_then(backbone):
    learner = learner_of(backbone)
    head_of(learner, torch.randn(2, backbone.feature_dim, generator=torch.Generator().manual_seed(0)))
    hidden, labels = backbone.embed(batch(backbone)), torch.tensor([3, 5, 3, 5])
    logits = learner(hidden).detach()
    stored = logits + torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, float("nan")], [0.0, float("nan")]])
    plain = learner.loss(hidden, labels, method=MethodConfig())
    dark = learner.loss(hidden, labels, method=MethodConfig(dark_weight=0.5), replayed=True, stored=stored)
    torch.testing.assert_close(dark - plain, torch.tensor(0.5 * ((1 + 4) / 2 + (0 + 1) / 2 + 9 + 0) / 4))
    dark.backward()
    assert learner.weight.grad.isfinite().all()


def test_label_smoothing_shares_a_part_of_the_target_among_all_classes(backbone):
    learner = learner_of(backbone)
    head_of(learner, torch.randn(2, backbone.feature_dim, generator=torch.Generator().manual_seed(0)))
    hidden, labels = backbone.embed(batch(backbone)), torch.tensor([3, 5, 3, 5])
    log_p = torch.log_softmax(learner(hidden).detach(), -1)
    own = log_p[torch.arange(4), torch.tensor([0, 1, 0, 1])]
    expected = -(0.8 * own + 0.2 * log_p.mean(1)).mean()
    found = learner.loss(hidden, labels, method=MethodConfig(label_smoothing=0.2))
    torch.testing.assert_close(found.detach(), expected)


def test_weights_of_new_classes_are_shortened_to_the_mean_norm_of_old_ones(backbone):
    learner = learner_of(backbone, classes=(3,))
    weights = torch.zeros(3, backbone.feature_dim)
    weights[0, 0], weights[1, 1], weights[2, :2] = 2, 3, torch.tensor([3.0, 4.0])
    learner.align()  # of the first phase: nothing to be aligned with
    learner.grow((5, 7))
    learner.align()  # new weights of norm 0
    assert not learner.weight.any()
    head_of(learner, weights, bias=0.5)
    learner.align()
    torch.testing.assert_close(learner.weight.detach(), weights * torch.tensor([[1.0], [0.5], [0.5]]))
    assert learner.bias.tolist() == [0.5] * 3
    short = weights * torch.tensor([[3.0], [1.0], [1.0]])
    head_of(learner, short)
    learner.align()
    assert torch.equal(learner.weight.detach(), short), "new weights are not lengthened"


def test_the_nearest_class_mean_worked_by_hand():
    features = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    means = ClassMeans.of(features, torch.tensor([7, 7, 2]))
    assert means.classes == (2, 7)
    assert means.predict(torch.tensor([[5.0, 1.0], [1.0, 5.0]])).tolist() == [7, 2]
    both = means.merged(ClassMeans([4], torch.tensor([[1.0, 1.0]])))
    assert both.predict(torch.tensor([[2.0, 2.1]])).tolist() == [4]
    assert ClassMeans.of(features[:0], torch.zeros(0)).predict(features).tolist() == [-1, -1, -1]


def test_true_logits_are_those_of_the_classes_of_the_examples(backbone):
    learner = learner_of(backbone, classes=(5, 3, 9))
    with torch.no_grad():
        learner.weight.copy_(torch.randn(learner.weight.shape, generator=torch.Generator().manual_seed(0)))
        learner.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    hidden, labels = backbone.embed(batch(backbone)), torch.tensor([3, 5, 9, 3])
    encoded = backbone.encode(hidden).detach().requires_grad_()
    found = learner.true_logits(encoded, labels)
    logits = learner(hidden)
    torch.testing.assert_close(found, logits[0, 1] + logits[1, 0] + logits[2, 2] + logits[3, 1])
    (gradient,) = torch.autograd.grad(found, encoded)
    assert gradient.abs().sum(1).min() > 0
    other = torch.tensor([9, 5, 9, 3])
    (changed,) = torch.autograd.grad(learner.true_logits(encoded, other), encoded)
    assert torch.equal(changed[1:], gradient[1:]), "an example explains its own class only"
    assert not torch.equal(changed[0], gradient[0])


def test_a_gradient_scorer_explains_the_true_class(backbone):
    learner = learner_of(backbone)
    with torch.no_grad():
        learner.weight.copy_(torch.randn(learner.weight.shape, generator=torch.Generator().manual_seed(0)))
    scorer = GradAttention(objective=learner.true_logits)
    one, other = (
        scorer(backbone, dataclasses.replace(batch(backbone), labels=torch.tensor(labels))).scores["image"]
        for labels in ([3, 3, 3, 3], [5, 3, 3, 3])
    )
    assert np.abs(one[0] - other[0]).max() > 0
    np.testing.assert_allclose(one[1:], other[1:], atol=1e-6)


def test_difficulty_worked_by_hand(backbone):
    learner = learner_of(backbone, classes=(7, 2))
    features = torch.zeros(3, backbone.feature_dim)
    features[1, 0], features[2, 0] = 1, -1
    with torch.no_grad():
        learner.weight[0, 0] = np.log(3)  # logits of (7, 2): (0, 0), (log 3, 0) and (-log 3, 0)
    found = learner.difficulty(features, torch.tensor([7, 2, 2]))
    # Probabilities of the true class are 1/2, 1/4 and 3/4; the last two predictions are equally unsure.
    np.testing.assert_allclose(found["loss"], [np.log(2), np.log(4), np.log(4 / 3)], rtol=1e-5)
    unsure = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(found["entropy"], [np.log(2), unsure, unsure], rtol=1e-5)
    assert found["loss"].dtype == np.float32
    nothing = learner.difficulty(features[:0], torch.zeros(0, dtype=torch.int64))
    assert [len(values) for values in nothing.values()] == [0, 0]


def test_a_cosine_head_sees_directions_alone_and_new_classes_can_learn(models):
    torch.manual_seed(0)
    learner = Learner(load_joint(models), Lora(rank=2, alpha=4), cosine=True)
    learner.grow((3, 5))
    features = torch.randn(4, learner.weight.shape[1], generator=torch.Generator().manual_seed(1))
    cosines = torch.nn.functional.cosine_similarity(features[:, None], learner.weight.detach()[None], dim=-1)
    torch.testing.assert_close(learner.logits(features), 10 * cosines)
    torch.testing.assert_close(learner.logits(7 * features), learner.logits(features))
    other = Learner(load_joint(models), Lora(rank=2, alpha=4), cosine=True)
    other.grow((3,))
    other.grow((5,))
    assert torch.equal(learner.weight, other.weight), "whenever a class came"
    loss = learner.loss(
        learner.backbone.embed(batch(learner.backbone)), torch.tensor([3, 5, 3, 5]), method=MethodConfig()
    )
    loss.backward()
    assert learner.weight.grad.any()
    assert learner.scale.grad.any()
    other.load((3, 5), learner.tuned())
    torch.testing.assert_close(other.logits(features), learner.logits(features))


def test_a_bias_of_new_classes_is_found_and_taken_back(backbone):
    """BiC: logits that were shifted and scaled on purpose come back to what they were."""
    learner = learner_of(backbone, classes=(3, 5))
    learner.grow((7, 9))
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([3, 5, 7, 9]).repeat(200)
    features = torch.randn(800, backbone.feature_dim, generator=generator)
    weights = torch.randn(4, backbone.feature_dim, generator=generator)
    features += 0.15 * weights[learner.targets(labels)]
    # The weights that fit best, of which the last two are spoilt.
    optimizer = torch.optim.LBFGS([learner.weight, learner.bias], max_iter=200, line_search_fn="strong_wolfe")
    penalty = 1e-2

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(learner.classify(features), learner.targets(labels))
        loss = loss + penalty * learner.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    first = learner.correct(features, labels)  # what the penalty leaves
    best = learner.logits(features)
    with torch.no_grad():
        learner.weight[2:] *= 2.0
        learner.bias[2:] = 2.0 * learner.bias[2:] + 3.0
    alpha, beta = learner.correct(features, labels)
    assert first != (alpha, beta)
    assert alpha == pytest.approx(0.5, abs=1e-3)
    assert beta == pytest.approx(-1.5, abs=1e-2)
    torch.testing.assert_close(learner.logits(features), best, atol=2e-3, rtol=1e-3)
