"""Coordinates on principal components."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem.codecs import PrincipalComponents, ScalarQuantisation, get_codec
from exmem.errors import CodecError


def low(count=2_000, width=64, rank=8, noise=0.01, seed=0):
    """Tokens that lie near a plane of few dimensions."""
    draw, place = np.random.default_rng(seed), np.random.default_rng(99)
    plane = place.normal(size=(rank, width)) / np.sqrt(width)
    return (5 + draw.normal(size=(count, rank)) @ plane + noise * draw.normal(size=(count, width))).astype(np.float32)


def lost(codec, tokens):
    """The share of the variance that does not come back."""
    return np.mean((codec.decode(codec.encode(tokens)) - tokens) ** 2) / tokens.var(0).mean()


def test_tokens_near_a_plane_need_few_bytes():
    codec, tokens = get_codec(PrincipalComponents.train(low(), bytes=4)), low(seed=5)
    assert codec.components == (8, 0, 0)
    assert len(codec.encode(tokens)) == 4 * len(tokens)
    assert lost(codec, tokens) < 0.06  # four bits leave 0.01, seven levels of the basis 0.04
    beside = get_codec(ScalarQuantisation.train(low(), bits=1))
    assert (len(beside.encode(tokens)), lost(beside, tokens) > 0.3) == (8 * len(tokens), True)


@pytest.mark.parametrize("rank", [1, 3, 64])
@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 16, 32, 100])
def test_a_token_takes_no_more_bytes_than_asked_for_and_more_bytes_lose_less(most, rank):
    tokens = low(rank=rank)
    codec = get_codec(PrincipalComponents.train(tokens, bytes=most))
    assert 1 <= codec.packed_bytes <= most
    assert codec.packed_bytes == most or sum(codec.components) == 64 or most > 32
    assert (
        lost(codec, tokens)
        <= lost(get_codec(PrincipalComponents.train(tokens, bytes=max(1, most // 2))), tokens) + 0.01
    )


def test_a_token_is_decoded_the_same_alone_and_in_a_batch_of_any_size():
    codec, tokens = get_codec(PrincipalComponents.train(low(width=384, rank=200), bytes=48)), low(97, 384, 200, seed=3)
    every = codec.decode(codec.encode(tokens))
    for row in range(0, 97, 8):
        np.testing.assert_array_equal(codec.decode(codec.encode(tokens[row : row + 1]))[0], every[row])


@given(seed=st.integers(0, 50), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e12]))
def test_tokens_of_any_size_come_back_finite(seed, scale):
    tokens = (low(64, 12, 4, seed=seed) * scale).astype(np.float32)
    codec = get_codec(PrincipalComponents.train(tokens, bytes=3))
    found = codec.decode(codec.encode(np.concatenate([tokens, tokens * 1e3, tokens * 0])))
    assert np.isfinite(found).all()
    wide = tokens.astype(np.float64)
    assert np.mean((found[:64] - wide) ** 2) <= 1.3 * wide.var(0).mean() + 1e-60


def test_tokens_that_are_all_the_same_come_back():
    tokens = np.full((40, 6), 2.5, np.float32)
    codec = get_codec(PrincipalComponents.train(tokens, bytes=2))
    np.testing.assert_allclose(codec.decode(codec.encode(tokens)), tokens, rtol=1e-3)


def test_fewer_training_tokens_than_values_make_the_same_kind_of_basis():
    few, tokens = low(48, 200, 8), low(300, 200, 8, seed=7)
    assert lost(get_codec(PrincipalComponents.train(few, bytes=4)), tokens) < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"basis": ""}, "needs a basis; make its configuration by PrincipalComponents.train"),
        ({"basis": "AAAA"}, "the basis cannot be read as 8 components of 64 values"),
        ({"components": [7, 0, 0]}, "the basis cannot be read as 7 components"),
        ({"components": [8, 0]}, "components must be three numbers"),
        ({"components": [60, 4, 1]}, r"components must be 1\.\.64 together"),
        ({"components": [0, 0, 0]}, r"components must be 1\.\.64 together"),
        ({"bytes": 0}, "bytes must be an integer of 1"),
        ({"shape": [65]}, "the basis cannot be read as 8 components of 65 values"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(change, message):
    config = PrincipalComponents.train(low(), bytes=4)
    with pytest.raises(CodecError, match=message):
        get_codec(config | change)


def test_too_few_or_too_large_training_tokens_are_refused():
    with pytest.raises(CodecError, match="training needs 32 finite tokens or more, got 31"):
        PrincipalComponents.train(low(31))
    with pytest.raises(CodecError, match=r"values must be within \+-1e\+15"):
        PrincipalComponents.train(low(64) * np.float32(1e20))
