"""A sheet as one HTML page that needs nothing else: no network, no scripts, no other file."""

import base64
from pathlib import Path

import imagecodecs
import jinja2
import numpy as np
from numpy.typing import NDArray

from exmem.report.view.sheet import Passage, Sheet

__all__ = ["data_uri", "render_page", "write_page"]

_TAGS = {"kept": "mark", "lost": "del", "plain": "span"}
_CARD_REM = {0: 22, 1: 22, 2: 24, 3: 34}  # narrower cards where there are fewer images
_WIDE_REM = 44
_ACROSS = 4
_LONG = 1_500  # letters; longer texts get a box of their own to scroll


def write_page(sheet: Sheet, path: Path) -> None:
    """Write a sheet as an HTML page.

    Parameters
    ----------
    sheet : Sheet
        What to show; all cards and whole texts are on the page.
    path : Path
        The file.
    """
    # Half of a surrogate pair is no letter: browsers show a reference to it as a replacement character.
    path.write_text(render_page(sheet), encoding="utf-8", errors="xmlcharrefreplace")


def render_page(sheet: Sheet) -> str:
    """Return a sheet as an HTML page; images are inlined, and texts never become markup.

    Parameters
    ----------
    sheet : Sheet
        The sheet.

    Returns
    -------
    str
        The page.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("exmem.report.view"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    environment.tests["long"] = _is_long
    widest = max((len(card.panels) for card in sheet.cards), default=0)
    across = max(1, widest if widest <= _ACROSS else -(-widest // 2))  # more images fill two lines
    card_rem = _CARD_REM.get(widest, _WIDE_REM)
    return environment.get_template("page.html").render(sheet=sheet, card_rem=card_rem, across=across, tags=_TAGS)


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image for the source of an `img`, without loss.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        The image.

    Returns
    -------
    str
        A `data:` address that holds it as WebP.
    """
    encoded = imagecodecs.webp_encode(np.ascontiguousarray(image), lossless=True)
    return "data:image/webp;base64," + base64.b64encode(encoded).decode("ascii")


def _is_long(passage: Passage) -> bool:
    return sum(len(piece.text) for piece in passage.pieces) > _LONG
