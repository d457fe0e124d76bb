"""A sheet as one HTML page that needs nothing else: no network, no scripts, no other file."""

import base64
import html
from collections.abc import Mapping
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from exmem.report.view.sheet import Card, Panel, Passage, Sheet

__all__ = ["render_page", "write_page"]

_TAGS = {"kept": "mark", "lost": "del", "plain": "span"}
_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --ink: #1c2330; --dim: #667085; --line: #dfe3ea;
  --kept: #d3f2dd; --kept-ink: #0b4f26; }
@media (prefers-color-scheme: dark) {
  :root { --back: #12151b; --card: #1b2029; --ink: #e7eaf0; --dim: #98a2b3; --line: #313947;
    --kept: #17452a; --kept-ink: #c9f5d8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: .2rem 0 .6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: 0; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
ul { color: var(--dim); margin: .7rem 0 0; padding-left: 1.1rem; max-width: 75rem; }
main { display: grid; gap: 1rem; margin-top: 1.2rem; align-items: stretch;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, WIDTHrem), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem; }
.panels { display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fit, minmax(max(7rem, calc((100% - 3rem) / PANELS)), 1fr)); }
figure { margin: 0; max-width: 18rem; }
figure img, .none { display: block; width: 100%; border-radius: .25rem; }
.none { aspect-ratio: 1; border: 1px dashed var(--line); color: var(--dim); display: grid; place-items: center; }
figcaption, .caption { font-size: .8rem; color: var(--dim); margin: .15rem 0 0; }
.passage { margin: .6rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.caption { margin-top: .6rem; }
.caption + .passage { margin-top: 0; }
mark { background: var(--kept); color: var(--kept-ink); border-radius: .2rem; padding: .05rem .1rem; }
del { color: var(--dim); text-decoration: line-through; }
article dl { margin-top: .6rem; font-size: .88rem; }
"""
_CARD_REM = {0: 22, 1: 22, 2: 24, 3: 34}  # narrower cards where there are fewer pictures
_WIDE_REM = 44
_ACROSS = 4


def write_page(sheet: Sheet, path: Path) -> None:
    """Write a sheet as an HTML page.

    Parameters
    ----------
    sheet : Sheet
        What to show.
    path : Path
        The file.
    """
    path.write_text(render_page(sheet), encoding="utf-8")


def render_page(sheet: Sheet) -> str:
    """Return a sheet as an HTML page; pictures are part of it, and texts never become markup.

    Parameters
    ----------
    sheet : Sheet
        What to show.

    Returns
    -------
    str
        The page.
    """
    widest = max((len(card.panels) for card in sheet.cards), default=0)
    across = max(1, widest if widest <= _ACROSS else -(-widest // 2))  # more pictures fill two lines
    style = _STYLE.replace("WIDTH", str(_CARD_REM.get(widest, _WIDE_REM))).replace("PANELS", str(across))
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in sheet.notes)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(sheet.title)}</title>\n<style>{style}</style>\n</head>\n<body>",
        f"<header>\n<h1>{html.escape(sheet.title)}</h1>\n{_facts(sheet.facts)}",
        f"<ul>{notes}</ul>\n</header>\n<main>" if notes else "</header>\n<main>",
        *(_card(card) for card in sheet.cards),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _card(card: Card) -> str:
    panels = "".join(map(_panel, card.panels))
    inside = [f"<h2>{html.escape(card.title)}</h2>"]
    inside += [f'<div class="panels">{panels}</div>'] if panels else []
    inside += [*map(_passage, card.passages), _facts(card.facts)]
    return "<article>\n" + "\n".join(inside) + "\n</article>"


def _panel(panel: Panel) -> str:
    caption = html.escape(panel.caption)
    if panel.picture is None:
        shown = '<div class="none">none</div>'
    else:
        height, width = panel.picture.shape[:2]
        source = _data_uri(panel.picture)
        shown = f'<img src="{source}" width="{width}" height="{height}" style="height: auto" alt="{caption}">'
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>\n"


def _passage(passage: Passage) -> str:
    pieces = (f"<{_TAGS[piece.state]}>{html.escape(piece.text)}</{_TAGS[piece.state]}>" for piece in passage.pieces)
    return f'<div class="caption">{html.escape(passage.caption)}</div>\n<div class="passage">{"".join(pieces)}</div>'


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>" if rows else ""


def _data_uri(picture: NDArray[np.uint8]) -> str:
    encoded = imagecodecs.webp_encode(np.ascontiguousarray(picture), lossless=True)
    return "data:image/webp;base64," + base64.b64encode(encoded).decode("ascii")
