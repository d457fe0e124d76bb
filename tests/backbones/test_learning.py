"""Every backbone can be tuned by the learner."""

import pytest
import torch

from exmem.backbones import BACKBONES
from exmem.backbones.blocks import running_blocks
from exmem.train.learner import Learner
from exmem.train.method_config import MethodConfig
from exmem.train.tuners.lora import Lora
from tests.backbones.models import load, whole


@pytest.mark.parametrize("kind", sorted(BACKBONES))
def test_gradients_reach_all_adapters_and_extras_and_the_loss_falls(kind, written):
    backbone = load(kind, written[kind], blocks=1)
    torch.manual_seed(0)
    learner = Learner(backbone, Lora(rank=2, alpha=4))
    learner.grow((3, 5))
    hidden, labels = backbone.embed(whole(backbone)), torch.tensor([3, 5])
    trained = {name: value for name, value in learner.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.01)
    losses = []
    for _ in range(3):  # LoRA starts at B = 0, the head at 0: A moves in the third step
        optimizer.zero_grad()
        loss = learner.loss(hidden, labels, method=MethodConfig())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    assert sum("lora_A" in name for name in trained) == len(backbone.lora_targets()) > 0
    assert all(value.grad.any() for value in trained.values())
    untouched = [value for name, value in learner.named_parameters() if name not in trained]
    assert all(value.grad is None for value in untouched)


@pytest.mark.parametrize("kind", sorted(BACKBONES))
def test_what_is_frozen_does_not_move_with_the_adapters(kind, written):
    backbone = load(kind, written[kind], blocks=1)
    before = backbone.embed(whole(backbone))
    learner = Learner(backbone, Lora(rank=2, alpha=4))
    expected = backbone.encode(before)
    for name, value in learner.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.5)
    after = backbone.embed(whole(backbone))
    for name, tensor in before.tensors().items():
        torch.testing.assert_close(after.tensors()[name], tensor, rtol=0, atol=0)
    assert (backbone.encode(after) - expected).abs().max() > 1e-3


def test_what_is_frozen_stays_in_evaluation_and_what_is_tuned_does_not(written):
    model = load("joint", written["joint"], blocks=1)
    model.trainable_blocks()[0].requires_grad_(True)
    model.train()
    tuned = {id(part) for block in model.trainable_blocks() for part in block.modules()}
    frozen = [part for part in model.modules() if [*part.parameters()] and id(part) not in tuned]
    still = [part for part in frozen if not any(weight.requires_grad for weight in part.parameters())]
    assert still
    assert not any(part.training for part in still)
    assert model.trainable_blocks()[0].training
    model.eval()
    assert not any(part.training for part in model.modules())


@pytest.mark.parametrize("kind", sorted(BACKBONES))
def test_blocks_run_compiled_or_in_bfloat16_only_where_that_is_asked(kind, written, monkeypatch):
    compiled, compile_ = [], torch.compile

    def counted(forward, *, dynamic):
        compiled.append(forward)
        return compile_(forward, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", counted)
    monkeypatch.setattr("exmem.backbones.blocks._COMPILED", {})
    backbone = load(kind, written[kind], blocks=1)
    tokens = whole(backbone, ["a red temple", "stone"])
    with torch.no_grad():
        plain = backbone(tokens)
        with running_blocks(compiled=True):
            torch.testing.assert_close(backbone(tokens), plain)
            number = len(compiled)
            backbone(tokens)
        assert len(compiled) == number > 0, "each kind of block once"
        with running_blocks(dtype=torch.bfloat16):
            hidden = backbone.embed(tokens)
            low = backbone.encode(hidden)
        assert {value.dtype for value in hidden.tensors().values() if value.is_floating_point()} == {torch.float32}
        assert low.dtype == torch.float32
        assert not torch.equal(low, plain)
        torch.testing.assert_close(low, plain, atol=0.1, rtol=0.1)
        assert torch.equal(backbone(tokens), plain), "it ends with the context"
