"""Eight to one bits a value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.codecs import ScalarQuantisation, get_codec
from exmem.errors import CodecError
from tests.exemplars import folder_bytes

BITS = [8, 4, 2, 1]


def normal(count=2_000, width=64, seed=0):
    """Channels of quite different centres and scales, as those of a trunk are."""
    draw, place = np.random.default_rng(seed), np.random.default_rng(99)
    scales, centres = 10 ** place.uniform(-2, 1, width), 3 * place.normal(size=width)
    return (centres * scales + scales * draw.normal(size=(count, width))).astype(np.float32)


def by_token(bits, width, dtype="float32"):
    return ScalarQuantisation(shape=(width,), dtype=dtype, bits=bits, scales="token")


def test_a_payload_is_scale_centre_and_codes():
    codec = by_token(1, 4)
    payload = codec.encode(np.array([[1, -1, 1, -1], [5, 3, 3, 5]], np.float32))
    # bfloat16 1.0; centre 0 and 4 in sixteenths; bits from the lowest up.
    assert payload == bytes.fromhex("803f0000 05 803f4000 09")
    level = np.float32(0.7978846)
    np.testing.assert_array_equal(
        codec.decode(payload), [[level, -level, level, -level], [4 + level, 4 - level, 4 - level, 4 + level]]
    )


@pytest.mark.parametrize(("bits", "error"), [(8, 0.0004), (4, 0.0115), (2, 0.1175), (1, 0.3634)])
def test_the_error_of_normal_channels_is_that_of_the_best_levels(bits, error):
    codec, tokens = get_codec(ScalarQuantisation.train(normal(), bits=bits)), normal(seed=5)
    payload = codec.encode(tokens)
    assert len(payload) == 2_000 * 64 * bits // 8
    found = np.mean((codec.decode(payload) - tokens) ** 2 / tokens.var(0))
    assert found < error * 1.02  # the deviation is rounded, and that of another sample


@given(data=st.data(), width=st.integers(1, 12))
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bits", BITS)
def test_tokens_of_any_finite_values_stay_finite_and_in_order(bits, dtype, data, width):
    largest = 65_504 if dtype == "float16" else float(np.finfo(np.float32).max)
    size = 16 if dtype == "float16" else 32
    values = data.draw(arrays(np.float64, (3, width), elements=st.floats(-largest, largest, width=size))).astype(dtype)
    codec = by_token(bits, width, dtype)
    found = codec.decode(codec.encode(values))
    assert np.isfinite(found).all()
    for token, decoded in zip(values, found, strict=True):
        assert (np.diff(decoded[np.argsort(token)].astype(np.float64)) >= 0).all()


@given(payload=st.binary(min_size=2 * 6, max_size=2 * 6))
def test_whatever_the_bytes_of_a_token_say_no_value_is_nan_or_infinite(payload):
    try:
        found = by_token(2, 8).decode(payload)
    except CodecError as error:
        assert "scale is not finite" in str(error)  # noqa: PT017 - either is right
    else:
        assert np.isfinite(found).all()


def test_channels_that_never_change_and_tokens_of_one_value_come_back():
    tokens = normal(300)
    tokens[:, 3], tokens[:, 7], tokens[:, 9] = 0, 1e-30, -70
    codec = get_codec(ScalarQuantisation.train(tokens, bits=2))
    found = codec.decode(codec.encode(tokens))
    np.testing.assert_allclose(found[:, 9], -70, rtol=1e-3)  # a scale of 1/2040 of the centre
    assert (np.abs(found[:, [3, 7]]) < 1e-3 * tokens.std()).all()  # of the smallest scale, 2^-16 of the largest
    even = by_token(4, 5)
    np.testing.assert_allclose(even.decode(even.encode(np.full((1, 5), 9.7, np.float32))), 9.7, rtol=1e-3)
    assert (even.decode(even.encode(np.zeros((1, 5), np.float32))) == 0).all()


def test_values_unlike_those_of_the_training_become_the_outermost_level():
    codec = get_codec(ScalarQuantisation.train(np.array([[-1.0], [1.0]], np.float32), bits=2))
    found = codec.decode(codec.encode(np.array([[3e38], [-3e38], [0.1]], np.float32)))
    np.testing.assert_allclose(found, [[1.510418], [-1.510418], [0.45278]], rtol=1e-5)
    wide = get_codec(ScalarQuantisation.train(np.array([[-1e-30], [1e-30]]), bits=2))
    found = wide.decode(wide.encode(np.array([[1e300], [-1e300]])))
    np.testing.assert_allclose(found, [[1.510418e-30], [-1.510418e-30]], rtol=1e-5)


def test_what_float32_cannot_scale_is_refused():
    with pytest.raises(CodecError, match="range of float32"):
        by_token(2, 2, "float64").encode(np.array([[1e300, 0]]))


@pytest.mark.parametrize("width", [384, 768, 1_152])
def test_the_channels_are_counted_and_small(width):
    config = ScalarQuantisation.train(normal(500, width), bits=2)
    assert width < len(config["channels"]) < 3 * width


@pytest.mark.slow
def test_channels_are_stored_once(tmp_path):
    config = ScalarQuantisation.train(normal(), bits=2)
    schema = Schema({"features": TokenSpec(positions=1, shape=(64,), dtype="float32", codec=config)})
    tokens = normal(50, seed=6)
    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes="100kB") as memory:
        memory.add([Exemplar({"features": TokenSet.dense(row[None])}, label=0) for row in tokens])
    texts = [path.read_bytes() for path in (tmp_path / "m").rglob("*") if path.is_file()]
    assert sum(config["channels"].encode() in text for text in texts) == 1
    memory = ExemplarMemory.open(tmp_path / "m")
    assert memory.used_bytes == folder_bytes(tmp_path / "m")
    found = memory.read(memory.slots).tokens["features"].values[:, 0]
    np.testing.assert_array_equal(found, get_codec(config).decode(get_codec(config).encode(tokens)))


def test_tokens_with_scales_of_their_own_need_no_training_but_take_it():
    assert ScalarQuantisation.train(normal(), bits=4, scales="token") == {
        "id": "exmem.scalar",
        "shape": [64],
        "dtype": "float32",
        "bits": 4,
        "scales": "token",
    }


def test_options_that_do_not_fit_are_refused():
    config = ScalarQuantisation.train(normal(), bits=4)
    for wrong in ({"channels": "AAAA"}, {"channels": "?"}, {"channels": 3}, {"shape": [32]}, {"shape": [65]}):
        with pytest.raises(CodecError, match="channels"):
            get_codec(config | wrong)
    with pytest.raises(CodecError, match="leave channels out"):
        get_codec(config | {"scales": "token"})
    with pytest.raises(CodecError, match=r"unknown exmem\.scalar scales 'row'"):
        get_codec(config | {"scales": "row"})
    with pytest.raises(CodecError, match="bits must be 1, 2, 4 or 8"):
        ScalarQuantisation.train(normal(), bits=3)
