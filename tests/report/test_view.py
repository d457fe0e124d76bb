"""Sheets of exemplars: what is drawn is what is stored, what is written is what is known, and texts stay texts."""

import base64
import html.parser

import imagecodecs
import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.errors import DataError, SchemaError, UnknownSlotError
from exmem.report.view.exemplars import Known, Source, choose_slots, exemplar_sheet, slots_of_classes
from exmem.report.view.images import draw_heat, draw_placed, find_grid, parse_grid, place_tokens, put_together
from exmem.report.view.page import render_page, write_page
from exmem.report.view.sheet import Card, Panel, Passage, Piece, Sheet
from exmem.report.view.words import mark_ids, mark_text, mark_tokens
from tests.exemplars import GRID, PATCH, crop, exemplar, patches, schema


class Page(html.parser.HTMLParser):
    """What a page holds; void elements and the nesting of all others are checked."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.images, self.captions = [], [], [], []
        self.facts, self.states, self.headings = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag not in {"script", "link", "iframe", "object"}
        for name, value in attributes:
            assert not name.startswith("on")
            if name in {"src", "href", "srcset"}:
                self.links.append(value)
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        if tag == "img":
            data = base64.b64decode(dict(attributes)["src"].removeprefix("data:image/webp;base64,"), validate=True)
            self.images.append(imagecodecs.webp_decode(data))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"mark", "del"}:
            self.states.append((self.open[-1], data))
        if self.open and self.open[-1] == "dd":
            self.facts.append(data)
        if self.open and self.open[-1] == "figcaption":
            self.captions.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture
def folder(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema("lossless"), max_bytes="400kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 3, kept=4) for seed in range(9)])
    return tmp_path / "m"


def test_stored_patches_are_drawn_in_their_places_and_dropped_ones_are_hatched():
    spec = schema().modalities["image"]
    kept = TokenSet([1, 14], patches(0)[[1, 14]])
    placed = place_tokens(kept, spec, (GRID, GRID))
    image = crop(0, GRID * PATCH)
    assert placed.kept.sum() == 2 * PATCH * PATCH
    np.testing.assert_array_equal(placed.pixels[placed.kept], image[placed.kept])
    drawn = draw_placed(placed)
    assert drawn.shape == (192, 192, 3)  # 64 pixels, three times as large
    np.testing.assert_array_equal(drawn[:48, 48:96], image[:16, 16:32].repeat(3, 0).repeat(3, 1))
    assert sorted(np.unique(drawn[:48, :48])) == [150, 186]


def test_black_that_is_stored_stays_black_and_is_not_hatched():
    spec = TokenSpec(positions=4, shape=(8, 8, 3))
    black = place_tokens(TokenSet([0], np.zeros((1, 8, 8, 3), np.uint8)), spec, (2, 2))
    drawn = draw_placed(black)
    half = len(drawn) // 2
    assert not drawn[:half, :half].any()
    assert drawn[half:].min() == 150


def test_finer_patches_lie_over_coarser_ones_whatever_their_order():
    fine = place_tokens(
        TokenSet([0], np.full((1, 4, 4, 3), 200, np.uint8)), TokenSpec(positions=4, shape=(4, 4, 3)), (2, 2)
    )
    half = place_tokens(
        TokenSet([0, 1], np.full((2, 2, 2, 3), 100, np.uint8)), TokenSpec(positions=4, shape=(2, 2, 3)), (2, 2)
    )
    for layers in ([fine, half], [half, fine]):
        found = put_together(layers)
        np.testing.assert_array_equal(found.pixels[:4, :4, 0], 200)
        np.testing.assert_array_equal(found.pixels[:4, 4:, 0], 100)
        assert found.kept[:4].all()
        assert not found.kept[4:].any()


def test_grey_patches_and_grids_that_are_no_squares_are_drawn():
    spec = TokenSpec(positions=6, shape=(4, 4))
    placed = place_tokens(TokenSet([4], np.full((1, 4, 4), 9, np.uint8)), spec, find_grid(6))
    assert placed.pixels.shape == (8, 12, 3)
    np.testing.assert_array_equal(placed.pixels[4:, 4:8], 9)


def test_heat_grows_lighter_with_the_score_and_a_line_runs_around_what_is_kept():
    grey = np.full((240, 240, 3), 128, np.uint8)
    scores = np.arange(16, dtype=np.float32)
    drawn = draw_heat(scores, (4, 4), grey).astype(np.int64)
    brightness = drawn.reshape(4, 60, 4, 60, 3).mean((1, 3, 4)).ravel()
    assert (np.diff(brightness) > 0).all()
    keep = np.zeros(16, np.bool_)
    keep[5] = True
    lined = (draw_heat(scores, (4, 4), grey, keep=keep) == (0, 229, 255)).all(-1)
    assert lined[60:120, 60:120].any()
    assert not lined[:60].any()
    assert not lined[64:116, 64:116].any()
    assert draw_heat(np.ones(16, np.float32), (4, 4), grey).shape == (240, 240, 3)


@pytest.mark.parametrize("text", ["12", "0x4", "4x", "-1x2", "4 x 4"])
def test_a_grid_that_is_none_is_refused(text):
    with pytest.raises(SchemaError, match="such as 12x16"):
        parse_grid(text)


def test_a_page_is_self_contained_and_shows_every_slot_with_the_bytes_of_the_store(folder):
    with ExemplarMemory.open(folder) as memory:
        slots, sizes = memory.slots.tolist(), memory.sizes.tolist()
        parts = memory.sizes_by_part(slots)
    assert list(parts) == ["image", "text", "extras", "catalog"]
    assert np.sum([*parts.values()], axis=0).tolist() == sizes
    text = render_page(exemplar_sheet(folder, slots))
    page = Page(text)
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)
    assert "http" not in text
    assert "url(" not in text
    assert page.headings == [f"class {slot % 3}, slot {slot}" for slot in slots]
    for at, size in enumerate(sizes):
        told = " + ".join(f"{name} {values[at]:,}" for name, values in parts.items())
        assert f"{size:,} = {told}" in page.facts
    assert len(page.images) == len(slots)
    spec = schema().modalities["image"]
    with ExemplarMemory.open(folder) as memory:
        for at, slot in enumerate(slots):
            stored = memory.read([slot]).exemplar(0).tokens["image"]
            np.testing.assert_array_equal(page.images[at], draw_placed(place_tokens(stored, spec, (GRID, GRID))))


def test_text_never_becomes_markup(folder):
    evil = "</div><script>alert('1')</script> & <b onclick=x>"
    card = Card(evil, {evil: evil}, (Panel(evil, None),), (Passage(evil, (Piece(evil, "kept"), Piece(evil, "lost"))),))
    page = Page(render_page(Sheet(evil, {evil: evil}, (evil,), (card,))))
    assert page.states == [("mark", evil), ("del", evil)]
    assert page.headings == [evil]
    named = Page(render_page(exemplar_sheet(folder, [0], known=Known(class_names=[evil] * 3))))
    assert named.headings == [f"{evil}, slot 0"]


def test_a_long_text_stands_whole_on_the_page_in_a_box_to_scroll():
    words = [f"word{number}" for number in range(5_000)]
    pieces = tuple(Piece(f"{word} ", "kept") for word in words)
    text = render_page(Sheet("t", {}, (), (Card("c", {}, (), (Passage("text", pieces), Passage("text", pieces[:9]))),)))
    assert [word.strip() for _, word in Page(text).states] == words + words[:9]
    assert text.count('<div class="passage long" tabindex="0">') == 1
    assert text.count('<div class="passage">') == 1


def test_a_page_is_for_narrow_screens_too_and_dark_on_white(folder):
    text = render_page(exemplar_sheet(folder, [0]))
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "background: #fff; color: #1c2330" in text
    assert "prefers-color-scheme" not in text
    assert "minmax(min(100%, var(--card)), 1fr)" in text  # a card is never wider than the screen


def test_spaces_of_a_text_stay_as_they_are_on_the_page():
    pieces = (Piece("red", "kept"), Piece("  \n", "plain"), Piece("roof", "lost"))
    text = render_page(Sheet("t", {}, (), (Card("c", {}, (), (Passage("text", pieces),)),)))
    assert '<div class="passage"><mark>red</mark><span>  \n</span><del>roof</del></div>' in text


def test_half_a_surrogate_pair_does_not_break_a_page(tmp_path):
    write_page(Sheet("half \ud800", {}, (), ()), tmp_path / "page.html")
    assert "half &#55296;" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "roof", "##s", "stone", ","]
    file = tmp_path_factory.mktemp("words") / "vocab.txt"
    file.write_text("\n".join(words))
    return BertTokenizer(str(file))


TEXT = "Red roofs, stone"  # [CLS] red roof ##s , stone [SEP]


def ids(positions):
    return TokenSet(positions, np.array([2, 5, 6, 7, 9, 8, 3], np.int32)[positions])


def test_kept_and_lost_words_are_marked_in_reading_order(tokenizer):
    assert mark_text(TEXT, ids([0, 2, 5, 6]), tokenizer, 8) == (
        Piece("Red", "lost"),
        Piece(" ", "plain"),
        Piece("roof", "kept"),
        Piece("s,", "lost"),
        Piece(" ", "plain"),
        Piece("stone", "kept"),
    )


def test_what_was_cut_off_counts_as_lost(tokenizer):
    cut = TokenSet([0, 1, 2, 3], np.array([2, 5, 6, 3], np.int32))  # four tokens at most: [CLS] red roof [SEP]
    states = {piece.text: piece.state for piece in mark_text(TEXT, cut, tokenizer, 4)}
    assert states == {"Red": "kept", " ": "plain", "roof": "kept", "s,": "lost", "stone": "lost"}


def test_a_text_that_the_tokens_are_not_of_is_refused(tokenizer):
    with pytest.raises(DataError, match="do not belong to the text"):
        mark_text("stone", ids([0, 2, 5]), tokenizer, 8)
    with pytest.raises(DataError, match="do not belong to the text"):
        mark_text("stone roofs, red", ids([0, 1]), tokenizer, 8)


def test_without_the_text_tokens_are_spelt_and_without_a_tokenizer_counted(tokenizer):
    def spelt(pieces):
        return "".join(piece.text for piece in pieces)

    assert spelt(mark_tokens(ids([0, 2, 3, 6]), tokenizer)) == "[CLS] (1 lost) roof ##s (2 lost) [SEP]"
    assert spelt(mark_ids(ids([2, 3]))) == "(2 lost) 6 7"
    many = mark_ids(TokenSet.dense(np.arange(70)))
    assert spelt(many).endswith("62 63 and 6 more")
    assert mark_ids(TokenSet([], np.zeros(0, np.int32))) == ()


def test_originals_scores_and_words_are_shown_where_they_are_known(tmp_path, tokenizer):
    own = Schema({"image": schema().modalities["image"], "text": TokenSpec(positions=8, dtype="int32")})
    with ExemplarMemory.create(tmp_path / "m", schema=own, max_bytes="200kB", durable=False) as memory:
        stored = TokenSet([0, 5], patches(3)[[0, 5]])
        memory.add([Exemplar({"image": stored, "text": ids([0, 2, 5, 6])}, label=1) for _ in range(2)])
    image = crop(3, GRID * PATCH)
    source = Source(image, TEXT, np.arange(16, dtype=np.float32), (GRID, GRID))
    known = Known(class_names=["temple", "flower"], tokenizer=tokenizer, max_text=8, sources={0: source})
    sheet = exemplar_sheet(tmp_path / "m", [0, 1], known=known)
    full, bare = sheet.cards
    assert [panel.caption for panel in full.panels] == ["original", "image: 2 of 16", "scores"]
    assert [panel.image is None for panel in bare.panels] == [True, False, True]
    assert full.title == "flower, slot 0"
    page = Page(render_page(sheet))
    assert page.states[:4] == [("del", "Red"), ("mark", "roof"), ("del", "s,"), ("mark", "stone")]
    np.testing.assert_array_equal(page.images[0], image)


def test_several_scales_are_drawn_each_and_put_together(tmp_path):
    scales = Schema(
        {
            "image_half": TokenSpec(positions=4, shape=(8, 8, 3)),
            "image": TokenSpec(positions=4, shape=(16, 16, 3)),
            "thumbnail": TokenSpec(positions=1, shape=(8, 8, 3)),
            "features": TokenSpec(positions=5, shape=(3,), dtype="float32"),
        }
    )
    tokens = {
        "image": TokenSet([0], patches(0)[:1]),
        "image_half": TokenSet([1], patches(1)[:1, ::2, ::2]),
        "thumbnail": TokenSet([0], patches(2)[:1, ::2, ::2]),
        "features": TokenSet([2, 4], np.array([[0, 1, 2], [3, 4, 5]], np.float32)),
    }
    none = {name: TokenSet([], tokens[name].values[:0]) for name in tokens}
    with ExemplarMemory.create(tmp_path / "m", schema=scales, max_bytes="200kB", durable=False) as memory:
        memory.add([Exemplar(tokens, label=0), Exemplar(none, label=0)])
    first, empty = exemplar_sheet(tmp_path / "m", [0, 1]).cards
    captions = [panel.caption for panel in first.panels]
    assert captions == [
        "image over image_half over thumbnail",
        "image_half: 1 of 4",
        "image: 1 of 4",
        "thumbnail: 1 of 1",
    ]
    assert first.facts["tokens of features"] == "2 of 5, 2 x 3 float32, min 0, mean 2.5, max 5"
    assert empty.facts["tokens of features"] == "0 of 5, 0 x 3 float32"
    together = first.panels[0].image
    thumbnail = np.asarray(tokens["thumbnail"].values)[0]  # below everything, 32 / 8 * 7 times as large
    np.testing.assert_array_equal(together[112:, 112:], thumbnail[4:, 4:].repeat(28, 0).repeat(28, 1))
    assert sorted(np.unique(empty.panels[0].image)) == [150, 186]


def test_what_is_not_there_is_refused_with_what_is(folder):
    with pytest.raises(UnknownSlotError, match=r"slots 99; 9 slots hold one: 0, 1, 2"):
        exemplar_sheet(folder, [0, 99])
    with pytest.raises(SchemaError, match=r"5 x 3 positions; there are \{'image': 16\}"):
        exemplar_sheet(folder, [0], grid=(5, 3))
    with ExemplarMemory.open(folder) as memory, pytest.raises(SchemaError, match="there are class 0, class 1, class 2"):
        slots_of_classes(memory, ["cat"])
    assert [card.panels[0].image.shape[:2] for card in exemplar_sheet(folder, [0], grid=(2, 8)).cards] == [(32, 128)]


def test_the_first_of_each_class_are_chosen_before_the_second(folder):
    with ExemplarMemory.open(folder) as memory:
        assert choose_slots(memory, most=3) == [0, 1, 2]
        assert choose_slots(memory, most=4) == [0, 3, 1, 2]
        assert choose_slots(memory, most=2) == [0, 2]
        assert choose_slots(memory, most=99) == [0, 3, 6, 1, 4, 7, 2, 5, 8]
        assert slots_of_classes(memory, ["2", "class 0"]) == [0, 2, 3, 5, 6, 8]
        assert slots_of_classes(memory, ["red"], ["green", "red", "1"]) == [1, 4, 7]
        assert slots_of_classes(memory, ["1"], ["green", "red", "1"]) == [2, 5, 8]  # a name goes before a number
        assert choose_slots(memory, most=1, among=[4, 8]) == [4]


@pytest.mark.parametrize(
    ("value", "told"),
    [(np.int64(123_456_789), "123456789 (int64)"), (np.float32(0.5), "0.5 (float32)"), (np.bool_(1), "True (bool)")],
)
def test_extra_fields_are_told_in_full_whatever_their_name(tmp_path, value, told):
    own = Schema({"bytes": TokenSpec(positions=2, dtype="int32")}, {"bytes": ExtraSpec(dtype=value.dtype)})
    with ExemplarMemory.create(tmp_path / "m", schema=own, max_bytes="100kB", durable=False) as memory:
        memory.add([Exemplar({"bytes": TokenSet([1], np.array([7], np.int32))}, label=0, extras={"bytes": value})])
    (card,) = exemplar_sheet(tmp_path / "m", [0]).cards
    assert card.facts["extra bytes"] == told
    assert card.facts["bytes"].endswith(f"extras {value.nbytes} + catalog 40")


def test_numbers_without_end_are_told_without_a_warning(tmp_path):
    own = Schema({"x": TokenSpec(positions=2, shape=(1,), dtype="float16")})
    with ExemplarMemory.create(tmp_path / "m", schema=own, max_bytes="100kB", durable=False) as memory:
        memory.add([Exemplar({"x": TokenSet.dense(np.array([[np.inf], [-np.inf]], np.float16))}, label=0)])
    (card,) = exemplar_sheet(tmp_path / "m", [0]).cards
    assert card.facts["tokens of x"] == "2 of 2, 2 x 1 float16, min -inf, mean nan, max inf"


def test_a_damaged_exemplar_says_so_and_the_others_are_shown(folder):
    shard = sorted(folder.glob("e*/image/c.*"))[0]
    data = bytearray(shard.read_bytes())
    data[7] ^= 4
    shard.write_bytes(bytes(data))
    damaged, whole = exemplar_sheet(folder, [0, 1]).cards
    assert "exemplar 0 is damaged" in damaged.facts["damaged"]
    assert whole.panels


def test_classes_are_known_by_annotated_names_as_well_as_by_given_ones(folder):
    with ExemplarMemory.open(folder, mode="r+") as memory:
        memory.annotate(class_names={0: "sky", 1: "temple", 7: "of no exemplar"})
    with ExemplarMemory.open(folder) as memory:
        assert slots_of_classes(memory, ["temple"]) == [1, 4, 7]
        assert slots_of_classes(memory, ["temple"], ["cloud", "roof"]) == [1, 4, 7]
        assert slots_of_classes(memory, ["roof"], ["cloud", "roof"]) == [1, 4, 7]
        with pytest.raises(SchemaError, match=r"there are sky, temple, class 2$"):
            slots_of_classes(memory, ["of no exemplar"])
    titles = [card.title for card in exemplar_sheet(folder, [0, 1, 2], known=Known(class_names=["cloud"])).cards]
    assert titles == ["cloud, slot 0", "temple, slot 1", "class 2, slot 2"]
