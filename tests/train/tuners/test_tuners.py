"""What moves by each tuner, in each family of backbones, and that nothing below the tuned blocks does."""

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn

from exmem.registry import Part
from exmem.tokens.tensors import TensorBatch
from exmem.train.learner import Learner
from exmem.train.method_config import MethodConfig
from exmem.train.tuners import TUNERS
from exmem.train.tuners.ssf import SsfConfig, SsfLayer
from tests.backbones.models import MAKERS, TEXTS, dense_features, load, whole, write
from tests.exemplars import photographs

FAMILIES = [*sorted(MAKERS), "joint"]
CHANGES_NOTHING_AT_FIRST = {"lora", "dora", "ia3", "layer_norm", "full", "frozen"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: write(kind, folder / kind) for kind in FAMILIES}


def batch_of(backbone):
    height, width = backbone.image_sides
    images = np.stack([photograph[:height, :width] for photograph in photographs()[:2]])
    return TensorBatch.from_numpy(backbone.tokens(np.ascontiguousarray(images), TEXTS))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tuner", sorted(TUNERS))
def test_the_tuned_blocks_move_and_the_frozen_trunk_stays(written, family, tuner):
    backbone = load(family, written[family], blocks=1)
    batch = batch_of(backbone)
    trunk_before, features_before = backbone.embed(batch), backbone(batch)
    torch.manual_seed(0)
    learner = Learner(backbone, TUNERS.make(tuner)).eval()
    if tuner in CHANGES_NOTHING_AT_FIRST:
        torch.testing.assert_close(backbone(batch), features_before, rtol=1e-5, atol=1e-6)
    learner.grow((0, 1))
    frozen = {name: value.clone() for name, value in learner.named_parameters() if not value.requires_grad}
    moving = [value for value in learner.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=0.1)
    learner.train()
    hidden, labels = backbone.embed(batch), torch.tensor([0, 1])
    for _ in range(3):  # the head starts at zero, LoRA's B too
        optimizer.zero_grad()
        learner.loss(hidden, labels, method=MethodConfig()).backward()
        optimizer.step()
    learner.eval()
    for name, value in learner.named_parameters():
        assert name not in frozen or torch.equal(value, frozen[name]), f"{name} is frozen and moved"
    trunk_after = backbone.embed(batch)
    for name, tensor in trunk_before.tensors().items():
        assert torch.equal(trunk_after.tensors()[name], tensor), "what is stored of the trunk would be stale"
    moved = not torch.equal(backbone(batch), features_before)
    assert moved or (tuner == "frozen" and family != "joint")


@pytest.mark.parametrize("tuner", ["lora:rank=2", "dora:rank=2", "ia3", "layer_norm", "ssf", "full"])
def test_a_checkpoint_holds_all_that_a_tuner_moved(written, tuner):
    part = Part.of(tuner)
    one, two = (Learner(load("vit", written["vit"]), TUNERS.make(part.name, **part.kwargs)) for _ in range(2))
    one.grow((0, 1))
    with torch.no_grad():
        for value in one.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value))
    two.load((0, 1), one.tuned())
    batch = batch_of(one.backbone)
    torch.testing.assert_close(two.backbone(batch), one.backbone(batch), rtol=0, atol=0)
    assert one.adapter_bytes == sum(
        value.nbytes for name, value in one.tuned().items() if name not in {"weight", "bias"}
    )


def test_ssf_scales_and_shifts_after_every_linear_layer_and_norm_of_the_tuned_blocks(written):
    backbone = load("vit", written["vit"], blocks=1)
    moved = TUNERS.make("ssf")(backbone)
    layers = [name for name, module in backbone.named_modules() if isinstance(module, SsfLayer)]
    # A block of ViT: query, key, value, the projection, two layers of the MLP, two norms; and the final norm.
    assert len(layers) == 9
    assert sum("layernorm" in name for name in layers) == 3
    assert len(moved) == 18
    scales = torch.cat([value.detach() for name, value in backbone.named_parameters() if "ssf_scale" in name])
    shifts = torch.cat([value.detach() for name, value in backbone.named_parameters() if "ssf_shift" in name])
    # N(1, 0.02) and N(0, 0.02) over 352 values: a mean is off by more than 0.005 once in 300,000.
    assert abs(float(scales.mean()) - 1) < 0.005 > abs(float(shifts.mean()))
    assert 0.017 < float(scales.std()) < 0.023
    assert 0.017 < float(shifts.std()) < 0.023


@pytest.mark.parametrize("family", FAMILIES)
def test_ssf_folded_is_ssf_unfolded(written, family):
    backbone = load(family, written[family], blocks=3)  # all of them, the patch embedding too where it can be
    TUNERS.make("ssf")(backbone)
    backbone.eval()
    batch = batch_of(backbone)
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if "ssf_" in name:
                value.add_(0.3 * torch.randn_like(value))
        unfolded = backbone(batch)
        layers = [module for module in backbone.modules() if isinstance(module, SsfLayer)]
        for layer in layers:
            layer.merge(safe_merge=True)
        torch.testing.assert_close(backbone(batch), unfolded, rtol=1e-4, atol=1e-5)  # rounding of three blocks
        for layer in layers:
            layer.unmerge()
        torch.testing.assert_close(backbone(batch), unfolded, rtol=1e-4, atol=1e-5)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 2, bias=False), nn.LayerNorm(4)
        self.linear, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.linear(self.norm(self.conv(x).mean((2, 3)))))


def test_peft_saves_and_loads_ssf_and_merges_it_away(tmp_path):
    torch.manual_seed(0)
    model, x = Small(), torch.randn(2, 3, 6, 6)
    bare = {name: value.clone() for name, value in model.state_dict().items()}
    config = SsfConfig(target_modules=["conv", "norm", "linear"])
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if "ssf_" in name:
                assert value.requires_grad
                value.add_(0.5 * torch.randn_like(value))
            else:
                assert not value.requires_grad
    expected = tuned(x)
    tuned.save_pretrained(tmp_path)
    fresh = Small()
    fresh.load_state_dict(bare)
    loaded = PeftModel.from_pretrained(fresh, tmp_path)
    torch.testing.assert_close(loaded(x), expected, rtol=0, atol=0)
    with loaded.disable_adapter():
        plain = Small()
        plain.load_state_dict(bare)
        torch.testing.assert_close(loaded(x), plain(x), rtol=0, atol=0)
    merged = loaded.merge_and_unload()
    assert not any(isinstance(module, SsfLayer) for module in merged.modules())
    torch.testing.assert_close(merged(x), expected, rtol=1e-5, atol=1e-6)  # rounding


def test_ssf_after_something_else_is_refused():
    with pytest.raises(ValueError, match="SSF follows"):
        get_peft_model(nn.Sequential(nn.Embedding(3, 4)), SsfConfig(target_modules=["0"]))


@pytest.mark.parametrize("family", ["vit", "dinov2", "vilt"])
def test_ssf_of_all_blocks_is_that_of_the_model_itself_after_its_patch_embedding_too(written, family):
    backbone = load(family, written[family], blocks=3)
    assert backbone.num_frozen_blocks == 0
    trunk = backbone.embed(whole(backbone))
    TUNERS.make("ssf")(backbone)
    backbone.eval()
    (projection,) = [layer for layer in backbone.modules() if isinstance(layer, SsfLayer) and is_conv(layer)]
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if "ssf_" in name:
                value.add_(0.3 * torch.randn_like(value))
    model = backbone.model if family == "vilt" else backbone.vision.model
    expected = dense_features(family, model, backbone)
    torch.testing.assert_close(backbone.encode(trunk), expected, rtol=1e-4, atol=1e-4)
    loss = backbone.encode(trunk).square().sum()
    loss.backward()
    assert projection.ssf_scale["default"].grad.any()
    for name, tensor in backbone.embed(whole(backbone)).tensors().items():
        assert torch.equal(tensor, trunk.tensors()[name]), "what is stored of the trunk stays"


def is_conv(layer):
    return isinstance(layer.get_base_layer(), nn.Conv2d)


def test_ssf_of_the_last_blocks_leaves_the_patch_embedding_alone(written):
    backbone = load("vit", written["vit"], blocks=1)
    TUNERS.make("ssf")(backbone)
    assert not any(is_conv(layer) for layer in backbone.modules() if isinstance(layer, SsfLayer))
