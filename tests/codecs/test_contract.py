"""The contract of every payload codec."""

import json
import re
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exmem
from exmem.codecs import CODECS, codec_name, get_codec
from exmem.errors import CodecError
from tests.codecs.cases import cases, check_close, values

CASES = cases()
every = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_codec_of_the_registry_is_tried():
    assert {case.codec().codec_id for case in CASES} == set(CODECS)


def test_the_prefix_of_a_name_may_be_left_out_and_one_place_knows_it():
    for name in CODECS:
        assert codec_name(name) == codec_name(name.removeprefix("exmem.")) == name
    package = Path(exmem.__file__).parent
    knowing = [path for path in package.rglob("*.py") if re.search(r'f"exmem\.\{.*CODECS', path.read_text())]
    assert knowing == [package / "codecs" / "registry.py"]


@pytest.mark.parametrize("count", [0, 1, 7, 40])
@every
def test_what_was_encoded_comes_back_within_the_stated_bound(case, count):
    codec, tokens = case.codec(), values(case, count)
    payload = codec.encode(tokens)
    assert payload == codec.encode(tokens.copy()), "the same input must give the same bytes"
    assert codec.token_count(payload) == count
    found = codec.decode(payload)
    assert (found.shape, found.dtype.name) == (tokens.shape, case.dtype)
    check_close(case, found, tokens)


@every
def test_a_part_of_a_larger_batch_is_decoded_in_place(case):
    codec, tokens = case.codec(), values(case, 5)
    batch = np.full((3, 8, *case.shape), 1, case.dtype)
    payload = codec.encode(tokens)
    codec.decode_into(np.frombuffer(payload, np.uint8), batch[1, :5])  # as a reader of a mapped file does
    np.testing.assert_array_equal(batch[1, :5], codec.decode(payload))
    assert (batch[1, 5:] == 1).all()
    assert (batch[[0, 2]] == 1).all()


@every
def test_the_configuration_survives_json(case):
    codec, tokens = case.codec(), values(case, 5)
    again = get_codec(json.loads(json.dumps(codec.get_config())))
    assert again.get_config() == codec.get_config()
    assert again.encode(tokens) == codec.encode(tokens)
    np.testing.assert_array_equal(again.decode(codec.encode(tokens)), codec.decode(codec.encode(tokens)))
    assert type(numcodecs.get_codec(codec.get_config())) is type(codec)


@every
def test_another_number_of_tokens_than_expected_is_refused(case):
    codec = case.codec()
    payload = codec.encode(values(case, 3))
    for count in (0, 2, 4):
        with pytest.raises(CodecError):
            codec.decode_into(payload, np.zeros((count, *case.shape), case.dtype))


@every
def test_values_of_another_shape_or_dtype_are_refused(case):
    codec = case.codec()
    with pytest.raises(CodecError, match="expects values"):
        codec.encode(np.zeros((2, *case.shape, 2), case.dtype))
    with pytest.raises(CodecError, match="expects values"):
        codec.encode(np.zeros((2, *case.shape), "complex64"))


@every
def test_tokens_that_equal_the_fill_value_are_data(case):
    """A black patch that was kept comes back as kept: black, and there."""
    codec = case.codec()
    tokens = values(case, 3)
    tokens[-1] = 0
    found = codec.decode(codec.encode(tokens))
    assert len(found) == 3
    check_close(case, found, tokens)
    if case.bound == "psnr":
        assert found[-1].mean() < 6


@given(data=st.data())
@every
def test_damage_is_an_error_or_tokens_of_the_right_shape_never_a_crash(case, data):
    """The checksum finds damage; a decoder must survive what comes with a right checksum all the same."""
    codec = case.codec()
    payload = bytearray(codec.encode(values(case, 4)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(payload)))
    out = np.zeros((4, *case.shape), case.dtype)
    for damaged in (bytes(payload), bytes(payload[:cut]), bytes(payload) + b"tail"):
        try:
            codec.decode_into(damaged, out)
        except CodecError:
            continue


def test_an_unknown_codec_or_option_lists_the_choices():
    with pytest.raises(CodecError, match=r"unknown codec 'jpg'; choose one of \['exmem.bfloat16'"):
        get_codec({"id": "jpg"})
    with pytest.raises(CodecError, match=r"exmem\.lossless"):
        get_codec({"id": "lossless", "quality": 3}, shape=(), dtype="int8")


@pytest.mark.parametrize("codec", ["patch_jpeg", "patch_webp", "patch_jxl", "patch_avif"])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((16, 16, 3), "float32"), ((16, 16, 4), "uint8"), ((16,), "uint8"), ((300_000, 1, 3), "uint8")]
)
def test_an_image_codec_says_which_tokens_it_takes(codec, shape, dtype):
    with pytest.raises(CodecError, match=r"takes uint8|sides of a patch"):
        get_codec({"id": codec}, shape=shape, dtype=dtype)


@pytest.mark.parametrize("codec", [name for name in CODECS if CODECS[name].trained])
def test_a_codec_that_was_not_trained_says_how(codec):
    with pytest.raises(CodecError, match=rf"{CODECS[codec].__name__}\.train"):
        get_codec({"id": codec}, shape=(16,), dtype="float32")
    tokens = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    made = get_codec(CODECS[codec].train(tokens, seed=3))
    assert made.encode(tokens) == get_codec(CODECS[codec].train(tokens, seed=3)).encode(tokens)
    wrong = tokens.copy()
    wrong[5, 5] = np.nan
    for refused, message in (
        (tokens[:1], "training needs"),
        (wrong, "training needs"),
        (tokens.astype(int), "takes float16, float32 or float64 tokens .* got int64"),
    ):
        with pytest.raises(CodecError, match=message):
            CODECS[codec].train(refused)


@pytest.mark.parametrize("codec", ["float16", "bfloat16", "int8"])
def test_a_feature_codec_says_which_tokens_it_takes_and_refuses_what_is_not_finite(codec):
    with pytest.raises(CodecError, match="use 'lossless'"):
        get_codec({"id": codec}, shape=(4,), dtype="int32")
    with pytest.raises(CodecError, match="use 'lossless'"):
        get_codec({"id": codec}, shape=(0,), dtype="float32")
    made = get_codec({"id": codec}, shape=(4,), dtype="float32")
    for wrong in (np.nan, np.inf):
        with pytest.raises(CodecError, match="finite"):
            made.encode(np.array([[1, 2, wrong, 3]], np.float32))


@pytest.mark.parametrize(
    "config",
    [
        {"id": "lossless", "level": 0},
        {"id": "scalar", "bits": 3, "scales": "token"},
        {"id": "scalar", "bits": 16, "scales": "token"},
        {"id": "lossless", "level": 20},
        {"id": "patch_webp", "effort": 7},
        {"id": "patch_jxl", "distance": -1},
        {"id": "patch_jxl", "effort": 10},
        {"id": "patch_avif", "quality": 0},
        {"id": "patch_avif", "speed": 11},
        {"id": "patch_avif", "subsampling": "422"},
        {"id": "patch_jpeg", "quality": 101},
        {"id": "patch_jpeg", "subsampling": "422"},
    ],
    ids=str,
)
def test_an_option_out_of_range_is_refused(config):
    dtype = "float32" if config["id"] == "scalar" else "uint8"
    with pytest.raises(CodecError, match=list(config)[1]):
        get_codec(config, shape=(16, 16, 3), dtype=dtype)
