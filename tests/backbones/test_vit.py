"""Vision models alone: tokens of unknown value are those of the original model."""

import dataclasses

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from exmem.backbones import Vit
from tests.backbones.models import MAKERS, SIZES, VISION, pixels, shaken, whole

MASKED = {
    "dinov2": MAKERS["dinov2"],
    "vit": lambda: ViTModel(ViTConfig(**SIZES, **VISION), add_pooling_layer=False, use_mask_token=True),
}


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
@pytest.mark.parametrize("kind", MASKED)
def test_tokens_of_unknown_value_are_masked_as_the_original_model_does(kind, size):
    model = shaken(MASKED[kind]())
    backbone = Vit(model, image_size=size)
    assert backbone.has_mask_token
    assert backbone.token_specs()["image"].positions == size[0] * size[1] // 64
    batch = whole(backbone)
    image = batch.tokens["image"]
    unknown = torch.rand(image.valid.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.no_grad():
        hidden = model(pixels(backbone), bool_masked_pos=unknown, **options).last_hidden_state
    batch.tokens["image"] = dataclasses.replace(image, unknown=unknown)
    expected = torch.cat([hidden[:, 0], hidden[:, 1:].mean(1)], 1)
    torch.testing.assert_close(backbone(batch), expected, atol=1e-4, rtol=1e-4)  # float32, another order of sums


def test_a_model_without_a_mask_token_says_so():
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3}
    assert not Vit(
        shaken(Dinov2Model(Dinov2Config(**sizes, **VISION, use_mask_token=False))), image_size=32
    ).has_mask_token
    assert not Vit(shaken(MAKERS["vit"]()), image_size=32).has_mask_token


def test_padding_does_not_leak_where_attention_is_computed_step_by_step():
    padded, found = None, []
    for attention in ("sdpa", "eager"):
        torch.manual_seed(0)
        model = shaken(MAKERS["vit"]())
        model.set_attn_implementation(attention)
        backbone = Vit(model, image_size=32)
        padded = padded or whole(backbone)
        padded.tokens["image"].valid[1, 3:] = False
        found.append(backbone(padded))
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)  # float32, another order of sums
