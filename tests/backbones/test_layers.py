"""Replay starts at a layer: hidden tokens of it make what pixels make, and no block below it runs."""

import dataclasses

import pytest
import torch

from exmem.backbones.blocks import attention_mask, run_blocks
from exmem.errors import SchemaError
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.backbones.models import load, whole

TOWERS = ["clip", "dinov2", "joint", "siglip", "vit"]


def at_layer(batch, states, layer):
    """The batch as it would be replayed: hidden tokens of a layer, and text ids beside."""
    tokens = {"prefix": TokenTensors.dense(states.prefix), "image": states.image}
    return TensorBatch({**batch.tokens, **tokens}, batch.labels, layer=layer)


def blocks_run(backbone, batch, **options):
    """Which vision blocks `embed` runs, in order."""
    run = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: run.append(number))
        for number, block in enumerate(backbone.vision.parts.blocks)
    ]
    backbone.embed(batch, **options)
    for hook in hooks:
        hook.remove()
    return run


@pytest.fixture(params=TOWERS)
def model(request, written):
    """Blocks 0 and 1 are frozen, block 2 is tuned."""
    return load(request.param, written[request.param], blocks=1)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_hidden_tokens_of_a_layer_make_what_pixels_make(model, layer):
    batch = whole(model)
    states = model.embed(batch, until=layer)
    found, expected = model.embed(at_layer(batch, states, layer)), model.embed(batch)
    for name, tensor in expected.tensors().items():
        assert torch.equal(found.tensors()[name], tensor), name
    assert torch.equal(model(at_layer(batch, states, layer)), model.encode(expected))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_only_the_frozen_blocks_above_the_layer_are_run(model, layer):
    batch = whole(model)
    assert blocks_run(model, batch) == [0, 1]
    assert blocks_run(model, batch, until=layer) == [*range(layer)]
    assert blocks_run(model, at_layer(batch, model.embed(batch, until=layer), layer)) == [*range(layer, 2)]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_fewer_hidden_tokens_have_their_places_and_the_padding_is_not_seen(model, layer):
    batch = whole(model)
    keep = torch.zeros(2, model.grid[0] * model.grid[1], dtype=torch.bool)
    keep[0, [3, 5, 20]] = keep[1, 7] = True
    states = model.embed(batch, until=layer).pruned(keep)
    together = model(at_layer(batch, states, layer))
    for row in range(2):
        own = torch.tensor([row])
        one = TensorBatch({name: tokens.select(own) for name, tokens in batch.tokens.items()}, batch.labels[own])
        alone = model(at_layer(one, states.select(own), layer))[0]
        torch.testing.assert_close(together[row], alone, atol=1e-4, rtol=1e-4)  # sums in another order


@pytest.mark.parametrize("layer", [0, 2])
def test_a_gradient_reaches_the_tokens_of_a_layer(model, layer):
    batch = whole(model)
    trunk = model.embed(at_layer(batch, model.embed(batch, until=layer), layer), gradient=True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model.encode(trunk).sum(), trunk.image.values)
    assert gradient.abs().sum() > 0


def test_hidden_tokens_of_tuned_blocks_of_another_width_or_prefix_are_refused(model):
    batch = whole(model)
    states = model.embed(batch)
    replayed = at_layer(batch, states, 2)
    with pytest.raises(SchemaError, match="went through 3 blocks, and the blocks from 2 on are tuned: they are stale"):
        model.embed(dataclasses.replace(replayed, layer=3))
    narrow = dataclasses.replace(states.image, values=states.image.values[..., :16])
    message = rf"expected hidden tokens of width 32 with {model.num_prefix} prefix tokens, got \(2, 24, 16\)"
    with pytest.raises(SchemaError, match=message):
        model.embed(at_layer(batch, dataclasses.replace(states, image=narrow, prefix=states.prefix[..., :16]), 2))
    more = torch.cat([states.prefix, torch.zeros(2, 1, 32)], 1)
    with pytest.raises(SchemaError, match=f"with {model.num_prefix + 1}; another backbone made them"):
        model.embed(at_layer(batch, dataclasses.replace(states, prefix=more), 2))


@pytest.mark.parametrize("kind", ["vilt", "bert"])
def test_a_backbone_without_a_tower_for_images_takes_no_hidden_tokens_of_them(kind, written):
    model = load(kind, written[kind])
    batch = whole(model)
    assert model.num_prefix is None
    for wrong, options in ((dataclasses.replace(batch, layer=1), {}), (batch, {"until": 1})):
        with pytest.raises(SchemaError, match=f"{type(model).__name__} has no tower for images alone.*use joint, vit"):
            model.embed(wrong, **options)


def test_a_block_that_takes_no_mask_is_refused_padding():
    class Deaf(torch.nn.Module):
        def forward(self, hidden):
            return hidden

    states = torch.ones(2, 3, 4)
    assert run_blocks([Deaf()], states, None) is states
    valid = torch.tensor([[True, True, True], [True, True, False]])
    with pytest.raises(SchemaError, match="Deaf takes no attention mask, and would attend to padding"):
        run_blocks([Deaf()], states, attention_mask(valid))
