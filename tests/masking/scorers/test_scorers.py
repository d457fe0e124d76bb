"""Each scorer against its definition, worked out with whole attention maps or by hand."""

import numpy as np
import pytest
import torch
from transformers import ViTModel

from exmem.errors import SchemaError
from exmem.masking import keep_ratio, mean_threshold, top_k
from exmem.masking.scorers import (
    SCORERS,
    AttentionRollout,
    AttentionValueNorm,
    CentreScores,
    CimBox,
    ClsAttention,
    ClsDiverse,
    GradAttention,
    RandomScores,
)
from exmem.masking.scorers.attention_pass import observe
from exmem.masking.scorers.centre import centre_distances
from exmem.masking.scorers.cim_box import box_scores
from exmem.masking.scorers.cls_diverse import diverse_gains
from exmem.tokens.tensors import TensorBatch
from tests.backbones.models import TEXTS, load, original, pixels
from tests.masking.scorers.cases import Toy, sparse_batch, whole_batch

CLOSE = {"rtol": 1e-4, "atol": 1e-6}  # float32, sums in another order
EYE = torch.eye


@pytest.fixture
def vilt(written):
    """A ViLT of square pictures, and the attention (B, H, T, T) of each layer of the original model."""
    model = load("vilt", written["vilt"], size=(32, 32), blocks=3)
    words = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with pytest.MonkeyPatch.context() as patch:
        # The original draws the order of its patches.
        patch.setattr(torch, "multinomial", lambda weights, count: torch.arange(count))
        found = original("vilt", written["vilt"])(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            token_type_ids=torch.zeros_like(words["input_ids"]),
            pixel_values=pixels(model),
            pixel_mask=torch.ones(2, 32, 32, dtype=torch.int64),
            output_attentions=True,
        )
    return model, found


TEXT, IMAGE = slice(0, 5), slice(6, 22)  # places in the original ViLT: text, image class token, patches


@pytest.fixture
def vision(written):
    """A joint backbone with a batch that has no text, and the attention of its vision model."""
    model = load("joint", written["joint"], size=(32, 32))
    eager = ViTModel.from_pretrained(written["joint"][0], add_pooling_layer=False, attn_implementation="eager").eval()
    found = eager(pixels(model), output_attentions=True, output_hidden_states=True)
    batch = whole_batch(model)
    return model, TensorBatch({"image": batch.tokens["image"]}, batch.labels), eager, found


def product(maps):
    """The product of all maps, the last layer's first."""
    total = EYE(maps[0].shape[-1])
    for one in maps:
        total = one @ total
    return total


def assert_text(found, expected):
    """Compare the words; the class token of the text stands in the prefix of the backbone."""
    for row, length in enumerate([5, 3]):
        np.testing.assert_allclose(found[row, 1:length], expected[row, 1:length].detach(), **CLOSE)


def test_class_attention_is_that_of_the_original_model(vilt):
    model, found = vilt
    maps = ClsAttention(layers=(0, -1))(model, whole_batch(model))
    rows = torch.stack([found.attentions[layer].mean(1)[:, 0] for layer in (0, 2)]).mean(0)
    np.testing.assert_allclose(maps.scores["image"], rows[:, IMAGE].detach(), **CLOSE)
    assert_text(maps.scores["text"], rows)
    last = found.attentions[-1].mean(1).detach()
    np.testing.assert_allclose(maps.text_to_image[0, 1:5], last[0, TEXT, IMAGE][1:], **CLOSE)
    np.testing.assert_allclose(maps.image_to_text[0, :, 1:5], last[0, IMAGE, TEXT][:, 1:], **CLOSE)


def test_class_attention_scores_a_modality_by_the_layers_that_hold_it(backbone):
    model = backbone("joint of dinov2")
    both, last, first = (ClsAttention(layers=layers)(model, whole_batch(model)) for layers in (None, (-1,), (0,)))
    np.testing.assert_array_equal(both.scores["text"], last.scores["text"])
    np.testing.assert_array_equal(first.scores["text"], last.scores["text"])
    assert (first.scores["image"] != last.scores["image"]).all()


@pytest.mark.parametrize("layers", [None, (-2, -1)])
def test_rollout_is_the_class_row_of_the_product_of_all_maps(layers, vilt):
    model, found = vilt
    maps = [(part.mean(1) + EYE(part.shape[-1])) / 2 for part in found.attentions[0 if layers is None else 1 :]]
    expected = product(maps)[:, 0].detach()
    scores = AttentionRollout(layers=layers)(model, whole_batch(model)).scores
    np.testing.assert_allclose(scores["image"], expected[:, IMAGE], **CLOSE)
    assert_text(scores["text"], expected)


def test_rollout_of_a_vision_model_is_the_product_of_its_own_maps(vision):
    model, batch, _, found = vision
    expected = product([(part.mean(1) + EYE(17)) / 2 for part in found.attentions])[:, 0, 1:].detach()
    np.testing.assert_allclose(AttentionRollout()(model, batch).scores["image"], expected, **CLOSE)


@pytest.mark.parametrize("scorer", [AttentionRollout(), AttentionRollout(layers=(0, 1))])
def test_text_that_enters_above_keeps_what_reached_it_there(scorer, backbone):
    model = backbone("joint")
    batch = sparse_batch(model)
    with torch.no_grad():
        seen = observe(model, batch, scorer.layers)
        maps = []
        for layer in seen.layers:
            layout = seen.layout(layer)
            full = EYE(1 + 11 + 5).repeat(2, 1, 1)  # where there is no text yet, its tokens stay as they are
            length = layout.valid.shape[1]
            full[:, :length, :length] = (seen.attention(layer).mean(1) + EYE(length)) / 2
            maps.append(full)
    expected = product(maps)[:, 0]
    scores = scorer(model, batch).scores
    np.testing.assert_allclose(scores["text"][0, :5], expected[0, 12:], **CLOSE)
    places = batch.tokens["image"].positions[0]
    np.testing.assert_allclose(scores["image"][0, places], expected[0, 1:12], **CLOSE)


def test_without_a_class_token_a_mean_over_the_tokens_or_the_probe_of_a_pooling_asks(backbone):
    mean, pooling = backbone("toy without class token"), backbone("toy of two towers")
    batch = whole_batch(mean)
    mean(batch)
    maps = [block.map.mean(1) for block in mean.blocks]
    found = ClsAttention()(mean, batch).scores
    expected = maps[-1][0].mean(0)  # the first row has no padding
    np.testing.assert_allclose(found["image"][0], expected[:16], **CLOSE)
    np.testing.assert_allclose(found["text"][0, :5], expected[16:], **CLOSE)
    rollout = product([(part[0] + EYE(21)) / 2 for part in maps]).mean(0)
    np.testing.assert_allclose(AttentionRollout()(mean, batch).scores["image"][0], rollout[:16], **CLOSE)
    pooling(batch)
    *maps, probe = [block.map.mean(1) for block in pooling.blocks]
    np.testing.assert_allclose(ClsAttention()(pooling, batch).scores["image"], probe[:, 0], **CLOSE)
    rollout = probe @ product([(part + EYE(16)) / 2 for part in maps])
    found = AttentionRollout()(pooling, batch)
    np.testing.assert_allclose(found.scores["image"], rollout[:, 0], **CLOSE)
    similarity = pooling.similarity(batch, None)
    np.testing.assert_allclose(found.scores["text"][0, :5], similarity.text[0], **CLOSE)
    np.testing.assert_allclose(found.text_to_image[0, :5], similarity.text_to_image[0], **CLOSE)
    np.testing.assert_allclose(found.image_to_text[0, :, :5], similarity.image_to_text[0], **CLOSE)


def test_a_model_whose_texts_nothing_tells_of_is_refused():
    model = Toy(("image", "text"), class_token=False, pooling=True, similar=True)
    model.similarity = lambda batch, trunk: None
    with pytest.raises(SchemaError, match="no similarity"):
        ClsAttention()(model, whole_batch(model))


def test_value_norm_weighs_each_head_by_the_length_of_its_value(vision):
    model, batch, original_model, found = vision
    block = original_model.layers[-1]
    values = block.attention.v_proj(block.layernorm_before(found.hidden_states[-2]))
    lengths = values.reshape(2, 17, 2, 16).norm(dim=-1).transpose(1, 2)
    expected = (found.attentions[-1][:, :, 0] * lengths).mean(1)[:, 1:].detach()
    np.testing.assert_allclose(AttentionValueNorm()(model, batch).scores["image"], expected, **CLOSE)


def relevance(maps, gradients):
    """Chefer et al. 2021: R starts as the identity, each layer adds its positive gradient-weighted map times R."""
    total = EYE(maps[0].shape[-1])
    for one, gradient in zip(maps, gradients, strict=True):
        total = total + (one * gradient).clamp(min=0).mean(1) @ total
    return total.detach()


@pytest.mark.parametrize("layers", [None, (-1, -2)])
def test_grad_attention_is_that_of_gradients_through_the_softmax(layers, vilt):
    model, found = vilt
    logits = torch.randn(32, generator=torch.Generator().manual_seed(5))
    chosen = found.attentions[0 if layers is None else 1 :]
    gradients = torch.autograd.grad((found.last_hidden_state[:, 0] @ logits).sum(), chosen)
    expected = relevance(chosen, gradients)[:, 0]
    scorer = GradAttention(layers=layers, objective=lambda features, labels: (features[:, :32] @ logits).sum())
    scores = scorer(model, whole_batch(model)).scores
    np.testing.assert_allclose(scores["image"], expected[:, IMAGE], **CLOSE)
    assert_text(scores["text"], expected)
    assert scores["image"].max() > 0


def test_grad_attention_explains_the_length_of_the_features_when_nothing_is_asked(backbone):
    toy = backbone("toy of two towers")
    batch = whole_batch(toy)
    hidden, keep, _ = toy.embed(batch)
    hidden.requires_grad_()
    features = toy.encode((hidden, keep, None))
    maps = [block.map for block in toy.blocks]
    gradients = torch.autograd.grad(features.square().sum() / 2, maps)
    top = (maps[-1] * gradients[-1]).clamp(min=0).mean(1)
    expected = top @ relevance(maps[:-1], gradients[:-1])
    np.testing.assert_allclose(GradAttention()(toy, batch).scores["image"], expected[:, 0].detach(), **CLOSE)


def test_grad_attention_gives_the_objective_the_labels_and_refuses_one_without_gradient(backbone):
    model, given = backbone("joint"), []
    scorer = GradAttention(objective=lambda features, labels: given.append(labels) or features[0, labels[1]])
    scorer(model, whole_batch(model))
    assert given[0].tolist() == [0, 0]
    with pytest.raises(SchemaError, match=r"got shape \(2, 96\)"):
        GradAttention(objective=lambda features, labels: features)(model, whole_batch(model))
    with pytest.raises(SchemaError, match="without gradient"):
        GradAttention(objective=lambda features, labels: features.detach().sum())(model, whole_batch(model))


def test_diversity_pays_a_repeated_token_nothing_and_falls_in_the_order_of_choice():
    keys = np.array([[[1, 0, 0], [2, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [9, 9, 9], [0, 0, 1]]], np.float32)
    scores = np.array([[0.5, 0.5, 0.4, 0.45, 0.9, 0.1]], np.float32)
    valid = np.array([[True, True, True, True, False, True]])
    # 0 is first of the tie; then 2 (0.4), since 3 is left 0.45 * (1 - 0.6) = 0.18, and after it 0.45 * (1 - 0.8).
    found = diverse_gains(scores, keys, valid)
    np.testing.assert_allclose(found, [[0.5, 0, 0.4, 0.09, 0, 0.1]], atol=1e-6)
    opposite = diverse_gains(np.ones((1, 2), np.float32), np.array([[[1.0], [-1.0]]], np.float32), valid[:, :2])
    assert opposite.tolist() == [[1, 1]]  # not 2: a token is worth no more than its attention


def test_diverse_scores_are_the_attention_at_most_and_that_of_the_best_token(backbone):
    model = backbone("vilt")
    plain, diverse = (scorer(model, whole_batch(model)).scores for scorer in (ClsAttention(), ClsDiverse()))
    for name in ("image", "text"):
        assert (diverse[name] <= plain[name] + 1e-7).all()
        np.testing.assert_allclose(diverse[name].max(1), plain[name].max(1))
        assert (diverse[name] < plain[name] - 1e-7).any()


def test_the_box_encloses_what_is_active_and_top_k_fills_it_by_attention():
    scores = np.zeros((2, 12), np.float32)  # 3 x 4
    scores[0, [1, 6]] = 0.9, 0.8  # rows 0-1, columns 1-2
    scores[0, 2], scores[0, 11] = 0.3, 0.4
    scores[1, 4] = 1  # a box of one
    boxes = box_scores(scores, np.ones((2, 12), np.bool_), (3, 4), threshold=0.5)
    keep = mean_threshold(boxes)
    assert np.flatnonzero(keep[0]).tolist() == [1, 2, 5, 6]
    assert np.flatnonzero(keep[1]).tolist() == [4]
    assert np.flatnonzero(top_k(boxes, k=3)[0]).tolist() == [1, 2, 6]
    assert np.flatnonzero(top_k(boxes, k=5)[0]).tolist() == [1, 2, 5, 6, 11]
    flat = box_scores(np.ones((1, 12), np.float32), np.arange(12)[None] < 10, (3, 4), threshold=0.5)
    assert flat.tolist() == [[1] * 10 + [0] * 2]
    with pytest.raises(SchemaError, match=r"in 0\.\.1"):
        CimBox(threshold=2)


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_the_mean_threshold_keeps_exactly_the_box_of_a_real_map(threshold, backbone):
    model = backbone("vilt")
    attention, boxes = (scorer(model, sparse_batch(model)) for scorer in (ClsAttention(), CimBox(threshold=threshold)))
    for row in range(2):
        valid = attention.valid["image"][row]
        scores = attention.scores["image"][row]
        share = (scores - scores[valid].min()) / np.ptp(scores[valid])
        rows, columns = np.divmod(np.flatnonzero(valid & (share >= threshold)), 6)
        inside = np.zeros((4, 6), np.bool_)
        inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        inside = inside.ravel() & valid
        keep = mean_threshold(boxes.scores["image"][[row]], valid=valid[None])[0]
        assert not inside[valid].all()
        np.testing.assert_array_equal(keep, inside)
    np.testing.assert_array_equal(boxes.scores["text"], attention.scores["text"])


def test_the_centre_of_any_grid_and_the_first_words_score_best():
    np.testing.assert_allclose(centre_distances((2, 3)), [1.118034, 0.5, 1.118034] * 2, rtol=1e-6)
    toy = Toy(("image", "text"))  # 2 x 8 patches
    maps = CentreScores()(toy, toy.batch())
    assert np.flatnonzero(keep_ratio(maps.scores["image"], ratio=0.25)[0]).tolist() == [3, 4, 11, 12]
    assert maps.scores["text"].tolist() == [[0, -1, -2, -3, -4, 0], [0, -1, -2, 0, 0, 0]]
    assert maps.text_to_image[1, :3].tolist() == [[1 / 16] * 16] * 3
    np.testing.assert_allclose(maps.image_to_text[1, 0], [1 / 3] * 3 + [0] * 3)


def test_another_seed_draws_other_scores(backbone):
    model = backbone("vilt")
    one, two = (RandomScores(seed=seed)(model, whole_batch(model)).scores["image"] for seed in (3, 4))
    assert (one != two).all()
    assert 0 <= one.min() < one.max() < 1


def test_scores_come_through_lora(written):
    from peft import LoraConfig, inject_adapter_in_model

    model = load("joint", written["joint"])
    before = GradAttention()(model, whole_batch(model)).scores["image"]
    inject_adapter_in_model(LoraConfig(target_modules=model.lora_targets(), init_lora_weights=True), model)
    found = GradAttention()(model, whole_batch(model)).scores["image"]
    np.testing.assert_allclose(found, before, **CLOSE)  # LoRA starts as nothing
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_unknown_scorer_lists_the_choices():
    with pytest.raises(SchemaError, match=r"unknown scorer 'clss'; choose one of .*'cls_attention'"):
        SCORERS.make("clss")
