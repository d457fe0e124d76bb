"""Streams with random image tokens left out."""

import dataclasses

import pytest
import torch

from exmem.augment import TokenDropout
from exmem.backbones import Stream
from exmem.tensors import TensorBatch, TokenTensors
from tests.backbones.models import load, whole

COUNTS = (8, 5, 1, 0)


def stream_of(counts=COUNTS):
    """Rows of so many image tokens whose values are their positions: 1, 3, 5, ... ; and two words each."""
    keep = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    positions = (1 + 2 * torch.arange(max(counts))) * keep
    rows = len(counts)
    words = torch.randn(rows, 2, 3, generator=torch.Generator().manual_seed(0))
    return Stream(
        torch.ones(rows, 1, 3),
        positions[..., None].expand(-1, -1, 3).float(),
        keep,
        positions,
        words,
        torch.ones(rows, 2, dtype=torch.bool),
        torch.arange(2).expand(rows, 2),
    )


def thinned(stream, ratio, *, probability=1.0, seed=0):
    return stream.thinned(ratio, probability=probability, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("ratio", "left"),
    # Of 8, 5, 1 and 0 tokens; 2.5 is rounded to the even number, as everywhere in torch.
    [(0.0, [8, 5, 1, 0]), (0.25, [6, 4, 1, 0]), (0.5, [4, 3, 1, 0]), (0.9, [1, 1, 1, 0]), (1.0, [1, 1, 1, 0])],
)
def test_the_ratio_is_dropped_and_one_token_stays_where_there_was_one(ratio, left):
    given = stream_of()
    found = thinned(given, ratio)
    assert found.image_keep.sum(1).tolist() == left
    assert found.image.shape[1] == max(left), "no wider than the longest row"
    batch = TensorBatch({"image": TokenTensors(given.image, given.image_positions, given.image_keep)}, torch.zeros(4))
    dropped = TokenDropout(ratio=ratio)(batch, generator=torch.Generator().manual_seed(0)).tokens["image"]
    assert dropped.keep.sum(1).tolist() == left, "as the augmentation of tokens"


@pytest.mark.parametrize("seed", range(5))
def test_tokens_keep_their_order_and_places_and_padding_has_none(seed):
    given = stream_of()
    found = thinned(given, 0.5, seed=seed)
    for row in range(len(found)):
        count = int(found.image_keep[row].sum())
        assert found.image_keep[row].tolist() == [True] * count + [False] * (found.image.shape[1] - count)
        places = found.image_positions[row, :count].tolist()
        assert places == sorted({*places})
        assert {*places} <= {*given.image_positions[row, given.image_keep[row]].tolist()}
        assert found.image[row, :count, 0].tolist() == places, "values moved with their places"
        assert not found.image_positions[row, count:].any()
    assert found.prefix is given.prefix
    assert found.text is given.text


def test_rows_that_are_not_chosen_stay_as_they_are():
    given = stream_of([6] * 40)
    found = thinned(given, 0.5, probability=0.5)
    whole_rows = found.image_keep.sum(1) == 6
    assert 10 < int(whole_rows.sum()) < 30
    assert set(found.image_keep.sum(1).tolist()) == {3, 6}
    assert torch.equal(found.image[whole_rows], given.image[whole_rows])
    assert torch.equal(found.image_positions[whole_rows], given.image_positions[whole_rows])
    nobody = thinned(given, 0.5, probability=0.0)
    assert torch.equal(nobody.image, given.image)


def test_the_generator_alone_decides_what_is_dropped():
    given = stream_of([8] * 6)
    one, same, other = (thinned(given, 0.5, seed=seed).image_positions for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_stream_without_image_tokens_stays_one():
    given = stream_of([0, 0])
    assert thinned(given, 0.5).image.shape == (2, 0, 3)
    assert len(thinned(given.select(torch.zeros(0, dtype=torch.int64)), 0.5)) == 0


@pytest.mark.parametrize("kind", ["joint", "vilt", "clip"])
def test_a_thinned_stream_is_that_of_the_tokens_that_are_left_where_all_blocks_are_tuned(kind, written):
    backbone = load(kind, written[kind], blocks=3)  # below tuned blocks, tokens have seen each other
    batch = whole(backbone)
    found = thinned(backbone.embed(batch), 0.5)
    image = batch.tokens["image"]
    rows = torch.arange(2)[:, None]
    kept = TokenTensors(image.values[rows, found.image_positions], found.image_positions, found.image_keep)
    fewer = dataclasses.replace(batch, tokens={**batch.tokens, "image": kept})
    torch.testing.assert_close(backbone.encode(found), backbone(fewer), atol=1e-4, rtol=1e-4)  # other order of sums
