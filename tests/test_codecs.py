"""The contract of every payload codec, then what is particular to each."""

import json

import numcodecs
import numpy as np
import pytest

from exmem.codecs import CODECS, PatchJpeg, get_codec
from exmem.errors import CodecError
from tests.exemplars import crop, patches

SHAPES = [((), "int32"), ((3,), "float32"), ((8, 8, 3), "uint8"), ((16, 16, 3), "uint8"), ((14, 14, 3), "uint8")]
SHAPES += [((9, 5, 3), "uint8"), ((16, 16, 1), "uint8"), ((7, 7), "uint8"), ((2, 2, 5), "float16"), ((1,), "bool")]
LOSSLESS = {"exmem.raw", "exmem.lossless"}
CASES = [
    pytest.param(codec_id, shape, dtype, id=f"{codec_id}-{shape}-{dtype}")
    for codec_id in sorted(CODECS)
    for shape, dtype in SHAPES
    if codec_id in LOSSLESS or (dtype == "uint8" and len(shape) >= 2)
]


def values(shape, dtype, count):
    if dtype == "uint8" and len(shape) >= 2:
        whole = crop(3, 64).reshape(-1)
        size = int(np.prod(shape))
        return (
            np.stack([whole[i * 7 : i * 7 + size] for i in range(count)]).reshape(count, *shape)
            if count
            else (np.zeros((0, *shape), np.uint8))
        )
    return np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (count, *shape)).astype(dtype)


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize(("codec_id", "shape", "dtype"), CASES)
def test_codec_gives_back_what_it_was_given(codec_id, shape, dtype, count):
    codec = get_codec({"id": codec_id}, shape=shape, dtype=dtype)
    given = values(shape, dtype, count)
    payload = codec.encode(given)
    assert payload == codec.encode(given.copy()), "the same input must give the same bytes"
    assert codec.token_count(payload) == count
    found = codec.decode(payload)
    assert (found.shape, found.dtype.name) == (given.shape, dtype)
    if codec_id in LOSSLESS:
        np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize(("codec_id", "shape", "dtype"), CASES)
def test_codec_survives_json(codec_id, shape, dtype):
    codec = get_codec({"id": codec_id}, shape=shape, dtype=dtype)
    again = get_codec(json.loads(json.dumps(codec.get_config())))
    given = values(shape, dtype, 5)
    assert again.get_config() == codec.get_config()
    np.testing.assert_array_equal(again.decode(codec.encode(given)), codec.decode(codec.encode(given)))
    assert type(numcodecs.get_codec(codec.get_config())) is type(codec)


@pytest.mark.parametrize(("codec_id", "shape", "dtype"), CASES)
def test_codec_refuses_another_number_of_tokens_than_expected(codec_id, shape, dtype):
    codec = get_codec({"id": codec_id}, shape=shape, dtype=dtype)
    payload = codec.encode(values(shape, dtype, 3))
    for count in (2, 4):
        with pytest.raises(CodecError):
            codec.decode_into(payload, np.zeros((count, *shape), dtype))


@pytest.mark.parametrize(("codec_id", "shape", "dtype"), CASES)
def test_codec_refuses_values_of_another_shape_or_dtype(codec_id, shape, dtype):
    codec = get_codec({"id": codec_id}, shape=shape, dtype=dtype)
    with pytest.raises(CodecError, match="expects values"):
        codec.encode(np.zeros((2, *shape, 2), dtype))
    with pytest.raises(CodecError, match="expects values"):
        codec.encode(np.zeros((2, *shape), "float64"))


def test_unknown_codec_lists_the_choices():
    with pytest.raises(CodecError, match=r"unknown codec 'jpg'; choose one of \['exmem.lossless'"):
        get_codec({"id": "jpg"})
    with pytest.raises(CodecError, match=r"exmem\.lossless"):
        get_codec({"id": "lossless", "quality": 3}, shape=(), dtype="int8")


@pytest.mark.parametrize("level", [0, 20])
def test_lossless_level_is_bounded(level):
    with pytest.raises(CodecError, match="level"):
        get_codec({"id": "lossless", "level": level}, shape=(), dtype="int8")


def test_lossless_refuses_a_frame_that_would_grow_beyond_the_tokens():
    small = get_codec({"id": "lossless"}, shape=(), dtype="uint8")
    bomb = b"\x02" + small.encode(np.zeros(10**6, np.uint8))[3:]  # claims two tokens, holds a million
    with pytest.raises(CodecError, match="cannot be decoded"):
        small.decode(bomb)


def psnr(found, given):
    return 10 * np.log10(255**2 / np.mean((found.astype(float) - given) ** 2))


@pytest.mark.parametrize(("subsampling", "floor"), [("420", 27.0), ("444", 29.0)])
@pytest.mark.parametrize("patch", [14, 16, 32])
def test_patch_jpeg_keeps_a_photograph_recognisable(patch, subsampling, floor):
    given = np.concatenate([patches(seed, grid=4, patch=patch) for seed in range(4)])
    codec = PatchJpeg(shape=(patch, patch, 3), subsampling=subsampling)
    assert psnr(codec.decode(codec.encode(given)), given) > floor  # measured 29-34 dB; q75 on these photographs


def test_patch_jpeg_stores_no_header():
    given = patches(0, grid=1, patch=16)
    codec = PatchJpeg(shape=(16, 16, 3))
    assert len(codec.encode(np.zeros_like(given))) < 20
    assert len(codec.encode(given)) < 300


def test_patches_of_a_mosaic_do_not_bleed_into_each_other():
    black_and_white = np.zeros((6, 14, 14, 3), np.uint8)
    black_and_white[::2] = 255
    codec = PatchJpeg(shape=(14, 14, 3), subsampling="444")
    np.testing.assert_array_equal(codec.decode(codec.encode(black_and_white)), black_and_white)


def test_a_kept_black_patch_comes_back_black():
    given = patches(1)[:3].copy()
    given[-1] = 0
    codec = PatchJpeg(shape=(16, 16, 3), subsampling="444")
    found = codec.decode(codec.encode(given))
    assert len(found) == 3
    assert found[-1].max() == 0


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((16, 16, 3), "float32", {}),
        ((16, 16, 4), "uint8", {}),
        ((16,), "uint8", {}),
        ((70_000, 1, 3), "uint8", {}),
        ((16, 16, 3), "uint8", {"quality": 0}),
        ((16, 16, 3), "uint8", {"quality": 101}),
        ((16, 16, 3), "uint8", {"subsampling": "422"}),
        ((16, 16, 3), "uint8", {"header": "not base64!"}),
        ((16, 16, 3), "uint8", {"header": "AAAA"}),
    ],
)
def test_patch_jpeg_refuses_what_it_cannot_take(shape, dtype, options):
    with pytest.raises(CodecError):
        PatchJpeg(shape=shape, dtype=dtype, **options)


def test_patch_jpeg_refuses_the_header_of_other_patches():
    header = PatchJpeg(shape=(32, 32, 3)).get_config()["header"]
    with pytest.raises(CodecError, match="does not belong"):
        PatchJpeg(shape=(16, 16, 3), header=header)


def test_patch_jpeg_says_when_the_encoder_writes_other_tables():
    other = PatchJpeg(shape=(16, 16, 3), quality=30).get_config()["header"]
    with pytest.raises(CodecError, match="other JPEG tables"):
        PatchJpeg(shape=(16, 16, 3), quality=75, header=other).encode(patches(0))


@pytest.mark.parametrize("cut", [2, 30, 200])
def test_patch_jpeg_cut_short_is_an_error_or_a_picture_never_a_crash(cut):
    codec = PatchJpeg(shape=(16, 16, 3))
    payload = codec.encode(patches(0))
    try:
        found = codec.decode(payload[:cut])
    except CodecError:
        return
    assert found.shape == (16, 16, 16, 3)
