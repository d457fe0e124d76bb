"""What every backbone of the registry promises."""

import contextlib
import dataclasses
import inspect
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from exmem.backbones import BACKBONES, Hidden, load_backbone
from exmem.errors import SchemaError
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.backbones.models import MASK, TEXTS, dense_features, load, original, pictures, whole

KINDS = sorted(BACKBONES)
WRONG = [
    *(
        ("trainable_blocks", value, r"trainable_blocks must be an integer of 1\.\.3")
        for value in (0, 4, 1.5, True, "2")
    ),
    *(("max_text", value, "max_text must be an integer of 0") for value in (-1, 1.5, "8")),
    *(("image_size", value, "image_size must be an integer of 1") for value in (0, 32.5, "32", (32, 32.0), (-32, 32))),
    ("image_size", (32, 32, 3), "image_size must be a side, or height and width"),
]
CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # float32, another order of sums


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def backbone(kind, written):
    return load(kind, written[kind])


def without(batch, name):
    return TensorBatch({other: tokens for other, tokens in batch.tokens.items() if other != name}, batch.labels)


def with_tokens(batch, **tokens):
    return TensorBatch({**batch.tokens, **tokens}, batch.labels)


def shuffled(tokens):
    """The same tokens in another order, with padding of wrong values among them."""
    count = tokens.valid.shape[1]
    order = torch.randperm(count + 3, generator=torch.Generator().manual_seed(1))
    places = order % count  # three of them twice, the second time as padding
    keep = tokens.valid[:, places] & (order < count)
    return TokenTensors(tokens.values[:, places], tokens.positions[:, places] * keep, keep)


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 32), (96, 128)])
def test_with_everything_kept_it_is_the_original_model(kind, written, size):
    backbone = load(kind, written[kind], size=size)
    batch = whole(backbone)
    if "image" in batch.tokens:
        assert backbone.grid == (size[0] // 8, size[1] // 8)
    if kind == "joint":  # no original mixes these towers: without text it is the vision model
        batch = without(batch, "text")
    found = backbone(batch)
    assert found.shape == (2, backbone.feature_dim)
    torch.testing.assert_close(found, dense_features(kind, original(kind, written[kind]), backbone), **CLOSE)


@pytest.mark.parametrize("blocks", [1, 3])
def test_what_is_frozen_changes_no_number(kind, written, blocks):
    backbone = load(kind, written[kind], blocks=blocks)
    if kind != "joint":  # there text enters above the frozen blocks
        expected = load(kind, written[kind])(whole(backbone))
        torch.testing.assert_close(backbone(whole(backbone)), expected, **CLOSE)
    assert (backbone.num_frozen_blocks == 0) == (blocks == 3)


def test_order_and_padding_of_tokens_do_not_matter(backbone):
    batch = whole(backbone)
    mixed = {name: shuffled(tokens) for name, tokens in batch.tokens.items()}
    torch.testing.assert_close(backbone(with_tokens(batch, **mixed)), backbone(batch), **CLOSE)


def test_a_row_is_the_same_alone_and_in_a_batch_of_longer_ones(backbone):
    batch = whole(backbone)
    parts = dict(batch.tokens)
    if "image" in parts:
        keep = parts["image"].valid.clone()
        keep[1, 3:] = False  # values and positions stay behind as wrong padding
        parts["image"] = dataclasses.replace(parts["image"], valid=keep)
    both = backbone(with_tokens(batch, **parts))
    alone = {name: tokens.select(torch.tensor([1])) for name, tokens in parts.items()}
    alone = {
        name: TokenTensors(tokens.values[:, :count], tokens.positions[:, :count], tokens.valid[:, :count])
        for name, tokens in alone.items()
        for count in [int(tokens.valid.sum())]
    }
    torch.testing.assert_close(backbone(TensorBatch(alone, batch.labels[1:])), both[1:], **CLOSE)
    assert (backbone(batch)[1] - both[1]).abs().max() > 1e-3 or "image" not in parts


def test_dropped_tokens_are_missed_and_positions_are_seen(backbone):
    batch = whole(backbone)
    expected = backbone(batch)
    for name, tokens in batch.tokens.items():
        keep = tokens.valid.clone()
        keep[:, 1] = False
        assert (
            backbone(with_tokens(batch, **{name: dataclasses.replace(tokens, valid=keep)})) - expected
        ).abs().max() > 1e-3
        count = int(tokens.valid.sum(1).min())
        positions = tokens.positions.clone()
        positions[:, :count] = positions[:, :count].flip(1)
        moved = dataclasses.replace(tokens, positions=positions)
        assert (backbone(with_tokens(batch, **{name: moved})) - expected).abs().max() > 1e-3


def test_features_are_finite_when_a_modality_is_missing_or_empty(backbone):
    batch = whole(backbone)
    for name, tokens in batch.tokens.items():
        missing = backbone(without(batch, name))
        assert missing.shape == (2, backbone.feature_dim)
        assert missing.isfinite().all()
        keep = tokens.valid.clone()
        keep[0] = False
        found = backbone(with_tokens(batch, **{name: dataclasses.replace(tokens, valid=keep)}))
        torch.testing.assert_close(found[0], missing[0], **CLOSE)
        torch.testing.assert_close(found[1], backbone(batch)[1], **CLOSE)
    nothing = backbone(TensorBatch({}, batch.labels))
    assert nothing.isfinite().all()


def test_modalities_that_it_does_not_see_are_ignored(backbone, written):
    batch = whole(backbone)
    assert set(batch.tokens) == set(backbone.modalities) == set(backbone.token_specs())
    other = whole(load("vilt", written["vilt"]))
    torch.testing.assert_close(backbone(with_tokens(other, **batch.tokens)), backbone(batch), rtol=0, atol=0)


def test_hidden_tokens_are_kept_joined_and_selected(tmp_path, backbone):
    batch = whole(backbone)
    tensors = backbone.embed(batch).tensors()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "hidden")
    kept = Hidden.of(load_file(tmp_path / "hidden"))
    parts = Hidden.cat([kept.select(torch.tensor([row])) for row in (1, 0)])
    expected = backbone(batch).flip(0)
    torch.testing.assert_close(backbone.encode(parts), expected, **CLOSE)
    assert backbone.encode(parts.to(torch.float16).to(torch.float32)).isfinite().all()


def test_texts_of_hidden_tokens_may_be_exchanged_where_they_are_separate(kind, written):
    backbone = load(kind, written[kind], blocks=3)
    assert backbone.text_is_separate
    hidden = backbone.embed(whole(backbone))
    found = backbone.encode(dataclasses.replace(hidden, text=hidden.text.select(torch.tensor([1, 0]))))
    swapped = TensorBatch.from_numpy(backbone.tokens(pictures(backbone), TEXTS[::-1]))
    torch.testing.assert_close(found, backbone(swapped), **CLOSE)
    mixing = kind in {"bert", "vilt"}
    assert load(kind, written[kind], blocks=1).text_is_separate != mixing


def listened(backbone, batch, **options):
    """What the projections of every layer return in one pass, what goes into the last one, hidden and features."""
    seen = [{} for _ in backbone.attention_taps()]

    def returned(found, name):
        return lambda module, inputs, output: found.update({name: output})

    def entered(found):
        return lambda module, inputs: found.update(output=inputs[0])

    with contextlib.ExitStack() as stack:
        for found, tap in zip(seen, backbone.attention_taps(), strict=True):
            for name in ("query", "key", "value"):
                stack.callback(getattr(tap, name).register_forward_hook(returned(found, name)).remove)
            stack.callback(tap.output.register_forward_pre_hook(entered(found)).remove)
        hidden = backbone.embed(batch, **options)
        return seen, hidden, backbone.encode(hidden)


def test_taps_are_the_attention_of_every_layer(backbone):
    batch = whole(backbone)
    for name, tokens in batch.tokens.items():
        batch.tokens[name].valid[1, tokens.valid.shape[1] // 2 :] = False
    seen, hidden, _ = listened(backbone, batch)
    for layer, (tap, found) in enumerate(zip(backbone.attention_taps(), seen, strict=True)):
        layout = backbone.layout(hidden, layer)
        query, key, value = (
            found[name].unflatten(2, (tap.num_heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        assert layout.valid.shape == found["key"].shape[:2]
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        read = torch.softmax(logits.masked_fill(~layout.valid[:, None, None], -1e9), -1) @ value
        rows = layout.valid if layout.residual else torch.ones(found["query"].shape[:2], dtype=torch.bool)
        torch.testing.assert_close(read.transpose(1, 2).flatten(2)[rows], found["output"][rows], **CLOSE)
        assert layout.query is None or found["query"][:, layout.query].shape[1] == 1
        for name in ("image", "text"):
            place = getattr(layout, name)
            if place is not None:
                torch.testing.assert_close(layout.valid[:, place], getattr(hidden, name).valid)
    last = backbone.layout(hidden, len(seen) - 1)
    assert (last.image is not None) == ("image" in backbone.modalities)
    assert last.query is not None


def test_gradients_reach_the_lowest_layer_only_when_they_are_asked_for(backbone):
    seen, _, features = listened(backbone, whole(backbone), gradient=True)
    lowest = [seen[0][name] for name in ("query", "key", "value")]
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    assert all(gradient.abs().max() > 0 for gradient in torch.autograd.grad((features * weights).sum(), lowest))
    assert not backbone.embed(whole(backbone)).prefix.requires_grad
    assert not backbone.embed(whole(backbone)).text.values.requires_grad
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_lora_adapts_query_and_value_of_the_trainable_blocks_alone(backbone):
    targets = backbone.lora_targets()
    blocks = backbone.trainable_blocks()
    inside = {id(module) for block in blocks for module in block.modules()}
    modules = dict(backbone.named_modules())
    assert len(set(targets)) == 2 * len(blocks) > 0
    assert all(isinstance(modules[name], torch.nn.Linear) and id(modules[name]) in inside for name in targets)
    names = dict(backbone.named_parameters())
    assert all(any(name.startswith(extra) for name in names) for extra in backbone.trainable_extras())


def test_image_tokens_of_unknown_value_are_the_mask_token_or_refused(backbone):
    batch = whole(backbone)
    if "image" not in backbone.modalities:
        assert not backbone.has_mask_token
        return
    image = batch.tokens["image"]
    unknown = torch.zeros_like(image.valid)
    masked = with_tokens(batch, image=dataclasses.replace(image, unknown=unknown))
    torch.testing.assert_close(backbone(masked), backbone(batch), rtol=0, atol=0)
    unknown[:, 2:5] = True
    if not backbone.has_mask_token:
        with pytest.raises(SchemaError, match=r"has no mask token .*drop"):
            backbone(masked)
        return
    other = image.values.clone()
    other[unknown] = 200
    changed = dataclasses.replace(image, values=other, unknown=unknown)
    torch.testing.assert_close(backbone(with_tokens(batch, image=changed)), backbone(masked), rtol=0, atol=0)
    assert (backbone(masked) - backbone(batch)).abs().max() > 1e-3


def test_text_tokens_of_unknown_value_are_the_mask_token_of_the_tokenizer(backbone):
    batch = whole(backbone)
    if "text" not in backbone.modalities:
        return
    text = batch.tokens["text"]
    unknown = torch.zeros_like(text.valid)
    unknown[:, 1] = True
    values = text.values.clone()
    values[:, 1] = MASK
    found = backbone(with_tokens(batch, text=dataclasses.replace(text, unknown=unknown)))
    expected = backbone(with_tokens(batch, text=dataclasses.replace(text, values=values)))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    backbone.tokenizer.mask_token = None
    with pytest.raises(SchemaError, match="leave them out"):
        backbone(with_tokens(batch, text=dataclasses.replace(text, unknown=unknown)))


def test_wrong_names_options_and_sizes_say_what_to_choose(kind, written):
    with pytest.raises(SchemaError, match=rf"takes {len(written[kind])} hub names or folders"):
        load_backbone(kind, *written[kind], "one more")
    with pytest.raises(SchemaError, match=r"no option \['depth'\]; it has \['image_size', 'max_text', 'train"):
        load_backbone(kind, *written[kind], depth=3)
    for name, value, message in WRONG:
        with pytest.raises(SchemaError, match=message):
            load_backbone(kind, *written[kind], **{"image_size": 32, name: value})
    if "image" in load(kind, written[kind]).modalities:
        with pytest.raises(SchemaError, match="no multiple of the patch side 8"):
            load(kind, written[kind], size=36)
    with pytest.raises(SchemaError, match="no squares; use image_sides"):
        _ = load(kind, written[kind]).image_size
    assert load(kind, written[kind], size=32).image_size == 32
    if "text" in load(kind, written[kind]).modalities:
        with pytest.raises(SchemaError, match="max_text must be at most 8"):
            load_backbone(kind, *written[kind], image_size=32, max_text=9)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("std", (0.5, 0, 0.5), "std must be three numbers above 0"),
        ("std", (0.5, 0.5), "std must be three numbers, one per channel"),
        ("std", (0.5, 0.5, math.inf), "std must be three finite numbers"),
        ("mean", (0.5, "0.5", 0.5), "each mean must be a number that is not NaN, got '0.5'"),
        ("mean", 0.5, "mean must be three numbers, one per channel, got 0.5"),
    ],
)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bert"])
def test_pixels_are_normalised_by_three_finite_numbers(kind, written, name, value, message, monkeypatch):
    pixels = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)} | {name: value}
    module = inspect.getmodule(BACKBONES[kind].from_pretrained)
    monkeypatch.setattr(module, "pixel_statistics", lambda name: (pixels["mean"], pixels["std"]))
    with pytest.raises(SchemaError, match=message):
        load(kind, written[kind])


def test_an_unknown_family_lists_the_known_ones():
    with pytest.raises(SchemaError, match=r"unknown backbone 'resnet'; choose one of \['bert', 'clip'"):
        load_backbone("resnet")


@pytest.mark.parametrize("family", ["clip", "siglip", "vilt"])
def test_a_family_without_packaged_weights_asks_for_a_name(family):
    with pytest.raises(SchemaError, match=r"takes 1 hub names or folders \['name'\], got \[\]"):
        load_backbone(family)


def test_special_ids_are_those_of_the_tokenizer(backbone):
    assert backbone.special_ids == (frozenset(range(5)) if "text" in backbone.modalities else frozenset())
