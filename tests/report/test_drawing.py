"""Sheets as images: whatever the cards hold, they fit, say what is cut, and show no letter as a silent box."""

import re

import matplotlib.font_manager
import matplotlib.offsetbox
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from exmem.report.view.drawing import draw_sheet
from exmem.report.view.fonts import REPLACEMENT, find_families
from exmem.report.view.sheet import Card, Panel, Passage, Piece, Sheet
from exmem.report.view.wrapping import Line, count_columns, cut_text, visual_order, wrap_pieces
from tests.exemplars import crop

WORDS = ["a", "red", "roof", "of", "stone", "over", "the", "old", "temple"]


def text_of(number):
    return tuple(
        piece
        for at in range(number)
        for piece in (Piece(WORDS[at % len(WORDS)], "kept" if at % 3 else "lost"), Piece(" ", "plain"))
    )


def card_of(panels=2, words=12, **facts):
    images = tuple(Panel(f"panel {at}", crop(at, 32)) for at in range(panels))
    return Card("class 1, slot 7", {"bytes": "1,104", **facts}, images, (Passage("text", text_of(words)),))


def size_of(path):
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def drawn(monkeypatch):
    """The texts that were put on sheets."""
    texts = []

    begin = matplotlib.offsetbox.TextArea.__init__

    def record(self, s, **options):
        texts.append(s)
        begin(self, s, **options)

    monkeypatch.setattr(matplotlib.offsetbox.TextArea, "__init__", record)
    return texts


@pytest.mark.parametrize(("cards", "panels"), [(0, 0), (1, 0), (1, 1), (1, 4), (3, 3), (12, 4), (48, 1)])
def test_a_sheet_of_any_number_of_cards_and_panels_is_as_large_as_it_needs(tmp_path, cards, panels):
    draw_sheet(Sheet("title", {"memory": "m"}, ("note",), (card_of(panels),) * cards), tmp_path / "sheet.png")
    width, height = size_of(tmp_path / "sheet.png")
    assert 900 < width < 2_100
    rows = -(-cards // (2 if panels > 2 else 3))  # cards side by side
    per_row = (300 if panels else 80), (400 if panels else 140)  # pixels: a panel is 228 high, a line about 16
    assert 80 + rows * per_row[0] < height < 250 + rows * per_row[1]


def test_any_text_is_drawn_and_nothing_is_taken_for_markup_or_mathematics(tmp_path, drawn):
    pieces = (Piece("red $x_1$ \U0001f600 ", "kept"), Piece("long" * 60, "lost"), Piece("\n\tend\x07", "plain"))
    cards = [Card("a & <b>", {"bytes": "1"}, (Panel("p", crop(0, 32)), Panel("q", None)), (Passage("text", pieces),))]
    draw_sheet(Sheet("title", {}, ("note",), tuple(cards * 50)), tmp_path / "sheet.png")
    assert "note\nThe first 48 of 50 are drawn; the HTML page shows all." in drawn
    assert {"a & <b>", "red $x_1$ \U0001f600"} <= set(drawn)
    assert " end " in drawn
    with Image.open(tmp_path / "sheet.png") as image:
        top = np.asarray(image.convert("RGB"))[:400].reshape(-1, 3)
    assert len(np.unique(top, axis=0)) > 100


def test_kept_words_lie_on_green_and_lost_ones_are_struck_out(tmp_path):
    for state in ("kept", "lost", "plain"):
        card = Card("t", {}, (), (Passage("text", (Piece("." * 40, state),)),))
        draw_sheet(Sheet("t", {}, (), (card,)), tmp_path / f"{state}.png")

    def pixels(state):
        with Image.open(tmp_path / f"{state}.png") as image:
            return np.asarray(image.convert("RGB")).astype(int)

    def share(state, colour):
        return (np.abs(pixels(state) - colour).max(-1) < 3).sum(1).max()

    assert share("kept", (0xD3, 0xF2, 0xDD)) > 280  # pixels of a row: 40 letters of 8 pixels
    assert share("lost", (0x6B, 0x74, 0x82)) > 280
    assert share("plain", (0xD3, 0xF2, 0xDD)) == 0
    assert share("plain", (0x6B, 0x74, 0x82)) < 20  # edges of letters


def test_the_size_of_a_sheet_is_bounded_whatever_it_holds(tmp_path, drawn):
    facts = {f"fact {number}": "long " * 400 for number in range(60)}
    passage = Passage("long " * 100, (Piece("long " * 5_000, "kept"),))
    card = Card("long " * 100, facts, card_of(9).panels, (passage,))
    draw_sheet(Sheet("long " * 100, {"all": "long " * 400}, ("long " * 400,), (card,) * 48), tmp_path / "sheet.png")
    width, height = size_of(tmp_path / "sheet.png")
    assert width < 2_100
    assert height < 13_000
    assert any(text.endswith("... and 37 more; the HTML page shows all.") for text in drawn)
    assert re.search(r"The first \d+ of 48 are drawn; the HTML page shows all\.", "\n".join(drawn))


def test_a_text_of_5000_words_is_cut_and_the_rest_is_counted(tmp_path, drawn):
    draw_sheet(Sheet("t", {}, (), (card_of(words=5_000),)), tmp_path / "sheet.png")
    assert size_of(tmp_path / "sheet.png")[1] < 900
    (told,) = [text for text in drawn if text.startswith("... and ")]
    shown = " ".join(drawn).split().count("temple")
    left_out = int(told.removeprefix("... and ").removesuffix(" more words").replace(",", ""))
    assert 4_800 < left_out < 5_000
    assert shown == sum(WORDS[at % len(WORDS)] == "temple" for at in range(5_000 - left_out))


def test_letters_that_no_font_has_are_named_on_the_sheet_and_nothing_warns(tmp_path, drawn):
    pieces = (Piece("roof \u0378\u0378", "kept"), Piece(" \u0379 end", "lost"))  # numbers that Unicode leaves free
    draw_sheet(Sheet("t", {}, (), (Card("c", {}, (), (Passage("text", pieces),)),)), tmp_path / "sheet.png")
    note = " ".join(drawn[-1].split())
    assert f"{REPLACEMENT} stands for letters that no installed font has" in note
    assert "U+0378 without a name, U+0379 without a name." in note
    assert f"roof {REPLACEMENT}{REPLACEMENT}" in drawn
    assert not any("\u0378" in text for text in drawn)


SCRIPTS = "漢字 مرحبا नमस्ते \U0001f600\U0001f469\u200d\U0001f680\ufe0f"


def test_every_letter_of_a_foreign_script_is_drawn_or_named(tmp_path, drawn):
    draw_sheet(Sheet(SCRIPTS, {}, (), (card_of(),)), tmp_path / "sheet.png")
    _, lacking = find_families(set(SCRIPTS) - {"\u200d", "\ufe0f"})
    assert (
        any(REPLACEMENT in text for text in drawn)
        == any("no installed font" in text for text in drawn)
        == bool(lacking)
    )
    assert not any("\u200d" in text or "\ufe0f" in text for text in drawn)  # they only join; no font shows them


def test_only_what_is_drawn_is_named(tmp_path, drawn):
    pieces = (*text_of(3_000), Piece("\u0378", "kept"))
    draw_sheet(Sheet("t", {}, (), (Card("c", {}, (), (Passage("text", pieces),)),)), tmp_path / "sheet.png")
    assert not any(REPLACEMENT in text for text in drawn)


def test_the_plain_font_is_enough_for_latin_and_another_that_is_installed_helps_it():
    assert find_families(set("Zürich, 5 €")) == (("DejaVu Sans Mono",), frozenset())
    families, lacking = find_families({"\U0001f600"})  # DejaVu Sans, which comes with matplotlib, has it
    assert (len(families), lacking) == (2, frozenset())


def write_font(path, *, letter, empty=False):
    shape = TTGlyphPen(None)
    if not empty:
        shape.moveTo((0, 0))
        for point in ((0, 700), (700, 700), (700, 0)):
            shape.lineTo(point)
        shape.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap({ord(letter): "letter"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "letter": shape.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "letter": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)


@pytest.mark.parametrize("empty", [False, True])
def test_a_font_that_was_installed_meanwhile_is_used_unless_its_letters_have_no_shape(
    tmp_path, monkeypatch, caplog, drawn, empty
):
    file = tmp_path / f"Made{empty}.ttf"
    write_font(file, letter="\u0378", empty=empty)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    manager = matplotlib.font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: [str(file), str(tmp_path / "broken.ttf")])
    draw_sheet(Sheet("roof \u0378", {}, (), ()), tmp_path / "sheet.png")
    assert caplog.records == []  # matplotlib logs what it does not find, such as a bold one of this font
    assert ("roof \u0378" in drawn) == (not empty)
    assert any(REPLACEMENT in text for text in drawn) == empty
    manager._findfont_cached.cache_clear()


def plain(text):
    return [Piece(text, "plain")]


def spelt(lines):
    return ["".join(piece.text for piece in line.pieces) for line in lines]


def test_lines_break_between_words_and_within_those_that_fill_half_a_line():
    assert spelt(wrap_pieces(plain("a red roof of stone"), 10, most=9)) == ["a red roof", "of stone"]
    assert spelt(wrap_pieces(plain("x" * 23), 10, most=9)) == ["x" * 10, "x" * 10, "x" * 3]
    assert spelt(wrap_pieces(plain("漢" * 12), 10, most=9)) == ["漢" * 5, "漢" * 5, "漢" * 2]
    assert wrap_pieces([], 10, most=9) == ()


def test_what_stands_in_one_state_is_one_piece_with_the_blanks_between():
    pieces = [Piece("a", "kept"), Piece("\n ", "plain"), Piece("b", "kept"), Piece(" ", "plain"), Piece("c", "lost")]
    expected = (Piece("a b", "kept"), Piece(" ", "plain"), Piece("c", "lost"))
    assert wrap_pieces(pieces, 40, most=3) == (Line(expected, 6),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("aa bb cc dd ee", "... and 3 more words"),
        ("aa bb " + "c" * 6, "... and 1 more word"),
        ("漢" * 90, "... and 88 more letters"),
    ],
)
def test_what_does_not_fit_is_counted_in_words_or_letters(text, told):
    lines = wrap_pieces(plain(text), 5, most=2)
    assert len(lines) == 2
    assert spelt(lines)[-1] == told


def test_a_caption_is_cut_by_the_columns_of_its_letters():
    assert cut_text("a red roof", 10) == "a red roof"
    assert cut_text("a red roofs", 10) == "a red r..."
    assert cut_text("漢" * 8, 10) == "漢漢漢..."
    assert count_columns("e\u0301") == 1


def test_words_of_a_script_that_runs_left_come_in_turn_from_the_right():
    (line,) = wrap_pieces(plain("see מילה אחת, שתיים then"), 40, most=2)
    assert [piece.text for piece in visual_order(line)] == ["see ", "שתיים", " ", "אחת,", " ", "מילה", " then"]
    (line,) = wrap_pieces(plain("a red roof"), 40, most=2)
    assert visual_order(line) == line.pieces
