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


def keep_of(*kept, length=16):
    """Positions that stay, a row each."""
    keep = torch.zeros(len(kept), length, dtype=torch.bool)
    for row, positions in enumerate(kept):
        keep[row, positions] = True
    return keep


def image_of(hidden):
    """Position and value of the image tokens, a row each."""
    rows = zip(hidden.image.positions, hidden.image.values[..., 0], hidden.image.valid, strict=True)
    return [dict(zip(place[valid].tolist(), value[valid].tolist(), strict=True)) for place, value, valid in rows]


def test_exactly_the_kept_tokens_stay_sorted_and_padded():
    given = made([4, 2, 1, 0])  # at 1, 3, 5, 7; 1, 3; 1; nowhere
    order = torch.tensor([2, 0, 3, 1])
    image = TokenTensors(given.image.values[:, order], given.image.positions[:, order], given.image.valid[:, order])
    for of in (given, dataclasses.replace(given, image=image)):
        found = of.pruned(keep_of([7, 3, 8], [1, 3, 5], [2], []))
        assert image_of(found) == [{3: 3, 7: 7}, {1: 1, 3: 3}, {}, {}]
        assert found.image.positions.tolist() == [[3, 7], [1, 3], [0, 0], [0, 0]]
        assert found.image.valid.tolist() == [[True] * 2, [True] * 2, [False] * 2, [False] * 2]
        assert not found.image.values[2:].any()
        assert torch.equal(found.prefix, given.prefix)
        assert torch.equal(found.text.values, given.text.values)
    assert given.image.valid.sum(1).tolist() == [4, 2, 1, 0], "the given ones are as they were"


SCORES = torch.zeros(4, 16)
SCORES[0, [1, 3, 5, 7]] = torch.tensor([9.0, 1.0, 3.0, 0.0])
SCORES[1, [1, 3]] = torch.tensor([-2.0, -1.0])
SCORES[2, 1] = 5.0


def test_what_is_dropped_becomes_its_weighted_mean_at_the_place_of_the_best():
    found = made([4, 2, 1, 0]).pruned(keep_of([1], [], [1], []), fused_by=SCORES)
    # (1 * 3 + 3 * 5 + 0 * 7) / 4 at 5; no score above 0: (1 + 3) / 2 at 3; nothing dropped; nothing there
    assert image_of(found) == [{1: 1, 5: 4.5}, {3: 2}, {1: 1}, {}]


def test_a_score_below_zero_weighs_nothing_and_ties_go_to_the_lower_position():
    scores = torch.full((1, 16), -1.0)
    scores[0, 3] = 2.0
    assert image_of(made([3]).pruned(keep_of([]), fused_by=scores)) == [{3: 3}]
    assert image_of(made([3]).pruned(keep_of([]), fused_by=torch.ones(1, 16))) == [{1: 3}]


@pytest.mark.parametrize("fused_by", [None, SCORES, -SCORES, torch.zeros(4, 16)], ids=["gone", "best", "worst", "even"])
def test_pruning_again_changes_nothing(fused_by):
    keep = keep_of([1], [], [1], [])
    once = made([4, 2, 1, 0]).pruned(keep, fused_by=fused_by)
    assert_equal(once.pruned(keep, fused_by=fused_by), once)
    everything = made([4, 2, 1, 0])
    assert_equal(everything.pruned(torch.ones(4, 16, dtype=torch.bool), fused_by=fused_by), everything)


def test_half_precision_is_kept_and_rows_are_fused_alike_alone_and_together():
    given, keep = made([4, 2, 1, 0]), keep_of([1], [], [1], [])
    half = given.to(torch.float16).pruned(keep, fused_by=SCORES)
    assert half.image.values.dtype == torch.float16
    together = image_of(given.pruned(keep, fused_by=SCORES))
    for row in range(4):
        own = torch.tensor([row])
        assert image_of(given.select(own).pruned(keep[own], fused_by=SCORES[own])) == together[row : row + 1]
