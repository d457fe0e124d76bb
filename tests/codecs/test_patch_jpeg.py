"""JPEG mosaics."""

import numpy as np
import pytest

from exmem.codecs import PatchJpeg
from exmem.errors import CodecError
from tests.exemplars import patches


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
