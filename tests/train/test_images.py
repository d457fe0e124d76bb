"""Pictures as people have them."""

import numpy as np
import pytest
from PIL import Image

from exmem.errors import DataError
from exmem.train.data.images import decode_picture

HALVES = np.zeros((32, 48, 3), np.uint8)
HALVES[:, :24] = (200, 30, 30)  # left red, right blue
HALVES[:, 24:] = (30, 30, 200)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_orientation_says(tmp_path, orientation):
    stored = Image.fromarray(HALVES)
    undo = {  # of what a viewer does for this orientation
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    found = decode_picture(tmp_path / "a.png", (32, 48))
    np.testing.assert_array_equal(found, HALVES)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, kind):
    deep = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{kind}")
    found = decode_picture(tmp_path / f"a.{kind}", 64)
    np.testing.assert_allclose(found[..., 0], deep / 257, atol=0.51)
    assert (found[..., 0] == found[..., 2]).all()


def test_integers_of_32_bits_are_refused_as_their_range_is_not_known(tmp_path):
    Image.fromarray(np.full((16, 16), 200, np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff: expected an image, got integers of 32 bits.* 8 or 16 bits"):
        decode_picture(tmp_path / "a.tiff", 16)


def test_grey_maps_of_16_bits_are_scaled(tmp_path):
    deep = np.linspace(0, 65_535, 256).reshape(16, 16).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + deep.tobytes())
    np.testing.assert_allclose(decode_picture(tmp_path / "a.pgm", 16)[..., 0], deep / 257.0, atol=0.51)


def test_floats_between_nought_and_one_are_scaled_and_others_refused(tmp_path):
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "a.tiff")
    assert decode_picture(tmp_path / "a.tiff", 16)[..., 1].ravel().tolist() == list(range(256))
    for name, value in (("large", 300.0), ("negative", -0.5), ("nan", np.nan)):
        Image.fromarray(np.full((16, 16), value, np.float32)).save(tmp_path / f"{name}.tiff")
        with pytest.raises(
            DataError, match=rf"{name}.tiff: expected an image, got float32 values .* save it in 8 bits"
        ):
            decode_picture(tmp_path / f"{name}.tiff", 16)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(tmp_path, mode):
    alpha = np.zeros((16, 16), np.uint8)
    alpha[4:12, 4:12] = 255
    glyph = Image.fromarray(np.dstack([np.zeros((16, 16, 3), np.uint8), alpha]))  # black where it shows, and where not
    path = tmp_path / "a.png"
    if mode == "P":
        palette = Image.fromarray((alpha > 0).astype(np.uint8)).convert("P")
        palette.putpalette([250, 0, 250, 0, 0, 0])
        palette.save(path, transparency=0)
    else:
        glyph.convert("LA").save(path) if mode != "RGBA" else glyph.save(path)
    found = decode_picture(path, 16)
    assert (found[alpha > 0] == 0).all()
    assert (found[alpha == 0] == 255).all()


def test_a_very_large_picture_is_decoded_at_a_reduced_size(tmp_path):
    Image.new("L", (13_000, 9_500), 77).save(tmp_path / "a.jpg", quality=20)
    assert decode_picture(tmp_path / "a.jpg", 64).shape == (64, 64, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_common_mode_is_taken(tmp_path, mode):
    Image.fromarray(HALVES).convert(mode).save(tmp_path / "a.tiff")
    assert decode_picture(tmp_path / "a.tiff", 16).shape == (16, 16, 3)


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png: expected an image"):
        decode_picture(tmp_path / "a.png", 16)
    with pytest.raises(DataError, match=r"b\.png: expected an image, got .* replace it or drop its row"):
        decode_picture(tmp_path / "b.png", 16)
