"""Hidden tokens go through the augmentations of tokens, and are put together, cut and kept as they are."""

import dataclasses
import functools

import pytest
import torch

from exmem.backbones import Hidden
from exmem.replay.augment import TextExchange, TokenDropout
from exmem.tokens.tensors import TokenTensors
from tests.backbones.models import load, whole


def made(counts):
    """Rows of so many image tokens whose values are their positions: 1, 3, 5, ... ; and two words each."""
    valid = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    positions = (1 + 2 * torch.arange(max(counts))) * valid
    rows = len(counts)
    words = torch.randn(rows, 2, 5, generator=torch.Generator().manual_seed(0))
    return Hidden(
        torch.arange(rows)[:, None, None].float().expand(rows, 1, 3),
        TokenTensors(positions[..., None].expand(-1, -1, 3).float(), positions, valid),
        TokenTensors(words, torch.arange(2).expand(rows, 2), torch.ones(rows, 2, dtype=torch.bool)),
    )


def dropped(hidden, ratio, seed=0):
    change = functools.partial(TokenDropout(ratio=ratio), generator=torch.Generator().manual_seed(seed))
    return hidden.augmented(change, torch.zeros(len(hidden), dtype=torch.int64))


def assert_equal(found, expected):
    assert found.tensors().keys() == expected.tensors().keys()
    for name, tensor in expected.tensors().items():
        assert torch.equal(found.tensors()[name], tensor), name


def test_dropout_leaves_values_beside_their_places_and_touches_nothing_else():
    given = made([8, 5, 1, 0])
    found = dropped(given, 0.5)
    assert found.image.valid.sum(1).tolist() == [4, 3, 1, 0]
    assert found.image.valid.shape[1] == 4, "no wider than the longest row"
    assert torch.equal(found.image.values[..., 0].long(), found.image.positions)
    assert torch.equal(found.prefix, given.prefix)
    assert torch.equal(found.text.values, given.text.values)


def test_texts_are_exchanged_within_a_class():
    given = made([2, 2, 2])
    change = functools.partial(TextExchange(probability=1.0), generator=torch.Generator().manual_seed(0))
    found = given.augmented(change, torch.tensor([0, 0, 1]))
    assert torch.equal(found.text.values, given.text.values[[1, 0, 2]])
    assert torch.equal(found.image.values, given.image.values)


def test_rows_are_cut_and_put_together_again_with_no_more_padding_than_they_need():
    given = made([8, 5, 1, 0])
    small, large = given.select(torch.tensor([2, 3])), given.select(torch.tensor([0, 1]))
    assert small.image.values.shape == (2, 1, 3)
    assert_equal(Hidden.cat([large, small]), given)
    assert len(given.select(torch.zeros(0, dtype=torch.int64))) == 0


def test_a_file_holds_every_tensor_and_another_dtype_changes_states_alone():
    given = made([3, 1])
    assert_equal(Hidden.of(given.tensors()), given)
    half = given.to(torch.float16)
    assert half.image.values.dtype == half.text.values.dtype == half.prefix.dtype == torch.float16
    assert half.image.positions.dtype == torch.int64
    assert half.image.valid.dtype == torch.bool


@pytest.mark.parametrize("kind", ["joint", "vilt", "clip"])
def test_fewer_hidden_tokens_are_those_of_fewer_tokens_where_all_blocks_are_tuned(kind, written):
    backbone = load(kind, written[kind], blocks=3)  # below tuned blocks, tokens have seen each other
    batch = whole(backbone)
    found = dropped(backbone.embed(batch), 0.5)
    image, rows = batch.tokens["image"], torch.arange(2)[:, None]
    kept = TokenTensors(image.values[rows, found.image.positions], found.image.positions, found.image.valid)
    fewer = dataclasses.replace(batch, tokens={**batch.tokens, "image": kept})
    torch.testing.assert_close(backbone.encode(found), backbone(fewer), atol=1e-4, rtol=1e-4)  # other order of sums
