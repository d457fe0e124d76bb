"""Images as people have them."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from exmem.errors import DataError
from exmem.train.data.images import MAX_PIXELS, ImageFacts, decode_image, inspect_image

HALVES = np.zeros((32, 48, 3), np.uint8)
HALVES[:, :24] = (200, 30, 30)  # left red, right blue
HALVES[:, 24:] = (30, 30, 200)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_orientation_says(tmp_path, orientation):
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
    found = decode_image(tmp_path / "a.png", (32, 48))
    np.testing.assert_array_equal(found, HALVES)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, kind):
    deep = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{kind}")
    found = decode_image(tmp_path / f"a.{kind}", 64)
    np.testing.assert_allclose(found[..., 0], deep / 257, atol=0.51)
    assert (found[..., 0] == found[..., 2]).all()


def test_integers_of_32_bits_are_refused_as_their_range_is_not_known(tmp_path):
    Image.fromarray(np.full((16, 16), 200, np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff: expected an image, got integers of 32 bits.* 8 or 16 bits"):
        decode_image(tmp_path / "a.tiff", 16)


def test_grey_maps_of_16_bits_are_scaled(tmp_path):
    deep = np.linspace(0, 65_535, 256).reshape(16, 16).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + deep.tobytes())
    np.testing.assert_allclose(decode_image(tmp_path / "a.pgm", 16)[..., 0], deep / 257.0, atol=0.51)


def test_floats_between_nought_and_one_are_scaled_and_others_refused(tmp_path):
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "a.tiff")
    assert decode_image(tmp_path / "a.tiff", 16)[..., 1].ravel().tolist() == list(range(256))
    for name, value in (("large", 300.0), ("negative", -0.5), ("nan", np.nan)):
        Image.fromarray(np.full((16, 16), value, np.float32)).save(tmp_path / f"{name}.tiff")
        with pytest.raises(
            DataError, match=rf"{name}.tiff: expected an image, got float32 values .* save it in 8 bits"
        ):
            decode_image(tmp_path / f"{name}.tiff", 16)


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
    found = decode_image(path, 16)
    assert (found[alpha > 0] == 0).all()
    assert (found[alpha == 0] == 255).all()


def test_a_very_large_jpeg_is_decoded_at_a_reduced_size(tmp_path):
    Image.new("L", (13_000, 9_500), 77).save(tmp_path / "a.jpg", quality=20)
    assert decode_image(tmp_path / "a.jpg", 64).shape == (64, 64, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_common_mode_is_taken(tmp_path, mode):
    Image.fromarray(HALVES).convert(mode).save(tmp_path / "a.tiff")
    assert decode_image(tmp_path / "a.tiff", 16).shape == (16, 16, 3)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png: expected an image"):
        decode_image(tmp_path / "a.png", 16)
    with pytest.raises(DataError, match=r"b\.png: expected an image, got .* replace it or leave it out"):
        decode_image(tmp_path / "b.png", 16)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_a_large_image_is_averaged_without_a_warning_and_pillows_bound_stays(tmp_path, mode):
    side = 13_000 if mode == "L" else 6_000
    bound = Image.MAX_IMAGE_PIXELS
    image = Image.new(mode, (side, side), 40_000 if mode == "I;16" else 77)
    if mode == "P":
        image.putpalette([77, 77, 77] * 256)
    image.save(tmp_path / "a.png", compress_level=1)
    expected = round(40_000 / 257) if mode == "I;16" else 77
    assert (decode_image(tmp_path / "a.png", (24, 32)) == expected).all()
    assert bound == Image.MAX_IMAGE_PIXELS


def test_a_large_image_that_is_turned_and_transparent_keeps_its_halves(tmp_path):
    image = Image.new("RGBA", (9_000, 4_000), (0, 0, 0, 0))
    image.paste((200, 30, 30, 255), (0, 0, 4_500, 4_000))  # the left half; the right is transparent
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it clockwise: left is above
    image.save(tmp_path / "a.png", exif=exif, compress_level=1)
    decoded = decode_image(tmp_path / "a.png", (90, 40))
    assert (decoded[:43] == [200, 30, 30]).all()  # two rows beside the border are mixed
    assert (decoded[47:] == 255).all()


def test_an_image_beyond_the_stated_limit_is_refused_before_it_is_decoded(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 30_000, 20_000, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b""))
    with pytest.raises(
        DataError, match=rf"got 30,000 x 20,000 pixels: more than {MAX_PIXELS:,} would be decoded; scale"
    ):
        decode_image(tmp_path / "a.png", 16)


def test_a_line_of_pixels_is_refused_and_not_blown_up(tmp_path):
    Image.new("L", (100_000, 1)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="got 100,000 x 1 pixels, whose sides differ too much: more than 400,000,000"):
        decode_image(tmp_path / "a.png", 224)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
def test_damaged_bytes_are_refused_in_one_line_or_decoded_never_a_traceback(tmp_path, kind):
    rng = np.random.default_rng(0)
    Image.fromarray(HALVES).save(tmp_path / f"a.{kind}")
    content = np.frombuffer((tmp_path / f"a.{kind}").read_bytes(), np.uint8)
    refused = []
    for _ in range(60):
        damaged = content.copy()
        damaged[rng.integers(0, len(damaged), 4)] = rng.integers(0, 256, 4)
        (tmp_path / f"b.{kind}").write_bytes(damaged[: rng.integers(len(damaged) // 2, len(damaged) + 1)].tobytes())
        try:
            assert decode_image(tmp_path / f"b.{kind}", 16).shape == (16, 16, 3)
        except DataError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in message for message in refused)


def test_an_image_is_described_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = {"mode": "RGB", "transparent": False, "turned": False, "deep": False, "several": False}
    halves = Image.fromarray(HALVES)
    halves.save(tmp_path / "plain.png")
    halves.save(tmp_path / "turned.jpg", exif=exif)
    halves.convert("CMYK").save(tmp_path / "cmyk.jpg")
    halves.convert("RGBA").save(tmp_path / "opaque.png")
    Image.new("RGBA", (48, 32), (0, 0, 0, 9)).save(tmp_path / "clear.png")
    Image.fromarray(np.zeros((32, 48), np.uint16)).save(tmp_path / "deep.png")
    halves.save(tmp_path / "several.webp", save_all=True, append_images=[halves.rotate(180)], lossless=True)
    expected = {
        "plain.png": ImageFacts(48, 32, **plain),
        "turned.jpg": ImageFacts(32, 48, **plain | {"turned": True}),
        "cmyk.jpg": ImageFacts(48, 32, **plain | {"mode": "CMYK"}),
        "opaque.png": ImageFacts(48, 32, **plain | {"mode": "RGBA"}),
        "clear.png": ImageFacts(48, 32, **plain | {"mode": "RGBA", "transparent": True}),
        "deep.png": ImageFacts(48, 32, **plain | {"mode": "I;16", "deep": True}),
        "several.webp": ImageFacts(48, 32, **plain | {"several": True}),
    }
    assert {name: inspect_image(tmp_path / name) for name in expected} == expected
    np.testing.assert_array_equal(decode_image(tmp_path / "several.webp", (32, 48)), HALVES)
