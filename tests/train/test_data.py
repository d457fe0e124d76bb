"""Folders of images and texts, and packages that carry data."""

import hashlib
import json
import random
import zipfile

import numpy as np
import pytest
from PIL import Image

from exmem.backbones.packaged.fetching import Carrier, build_once, fetch
from exmem.cli.demo.stickers.compose import compose, sample_photographs
from exmem.cli.demo.stickers.concepts import describe
from exmem.errors import DataError
from exmem.train.data import load_imagefolder
from tests.exemplars import crop


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EXMEM_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        rows = []
        for index, label in enumerate(["10", "9"]):
            Image.fromarray(crop(index, 60)[:, :50]).save(tmp_path / "data" / split / f"{index}.png")
            rows.append({"file_name": f"{index}.png", "text": f"text {index}", "label": label})
        write(tmp_path / "data" / split, rows)
    return tmp_path / "data"


def write(split, rows):
    (split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_folder_gives_pictures_texts_and_sorted_classes(folder):
    train, test = load_imagefolder(folder)
    assert train.class_names == test.class_names == ("9", "10")
    assert train.texts == ("text 0", "text 1")
    assert train.labels.tolist() == [1, 0]
    assert train.images([1, 0], 40).shape == (2, 40, 40, 3)
    np.testing.assert_array_equal(train.image(0, 50), crop(0, 60)[5:55, :50])


def test_numbers_of_one_value_are_classes_in_a_fixed_order(folder):
    labels = ["001", "1", "01", "2", "b"]
    for split in ("train", "test"):
        rows = [{"file_name": f"{row % 2}.png", "text": str(row), "label": label} for row, label in enumerate(labels)]
        write(folder / split, rows)
    assert load_imagefolder(folder)[0].class_names == ("001", "01", "1", "2", "b")


def test_pictures_are_cut_around_their_centre_to_any_shape(folder):
    train, _ = load_imagefolder(folder)  # 50 wide, 60 high
    assert train.images([1, 0], (40, 64)).shape == (2, 40, 64, 3)
    np.testing.assert_array_equal(train.image(0, (60, 40)), crop(0, 60)[:, 5:45])
    np.testing.assert_array_equal(train.image(0, (30, 50)), crop(0, 60)[15:45, :50])
    np.testing.assert_array_equal(train.image(0, (25, 25)), train.image(0, 25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "expected a label"),
        ({"text": None}, "expected a text"),
        ({"label": "7"}, "train lacks"),
    ],
)
def test_what_is_wrong_in_the_metadata_is_named(folder, change, message):
    row = {"file_name": "0.png", "text": "text", "label": "9"}
    write(folder / "test", [row | change, row | {"file_name": "1.png"}])
    with pytest.raises(DataError, match=message):
        load_imagefolder(folder)


def test_missing_metadata_columns_and_pictures_are_named(folder):
    with pytest.raises(DataError, match="name yours with text_column"):
        load_imagefolder(folder, text_column="caption")
    train, _ = load_imagefolder(folder)
    (folder / "train" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png: expected an image"):
        train.image(0, 40)
    (folder / "train" / "metadata.jsonl").unlink()
    with pytest.raises(DataError, match=r"expected a metadata\.jsonl"):
        load_imagefolder(folder)


def test_a_wheel_with_another_hash_is_refused_and_deleted(tmp_path):
    wheel = tmp_path / "wheels" / "thing-1.0.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a.txt", "data")
    good = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with fetch(Carrier("thing", "1.0", good), cache=tmp_path) as opened:
        assert opened.read("a.txt") == b"data"
    with pytest.raises(DataError, match="SHA-256"):
        fetch(Carrier("thing", "1.0", "0" * 64), cache=tmp_path)
    assert not wheel.exists()


def test_a_package_that_cannot_be_fetched_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="check the network"):
        fetch(Carrier("thing", "1.0", ""), cache=tmp_path, options=("--no-index",))


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("")
        raise DataError("broken")

    with pytest.raises(DataError):
        build_once(tmp_path / "built", fail)
    assert list(tmp_path.iterdir()) == []
    built = build_once(tmp_path / "built", lambda folder: (folder / "whole").write_text("") and None)
    assert [path.name for path in built.iterdir()] == ["whole"]
    assert build_once(tmp_path / "built", fail) == built


def test_a_sticker_lies_on_a_photograph_and_its_words_hide_the_class():
    artwork = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    artwork.paste((255, 0, 255, 255), (16, 16, 48, 48))
    one, two = (compose(artwork, 64, random.Random(1), sample_photographs()) for _ in range(2))
    np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    assert (np.asarray(one.convert("RGB")) == [255, 0, 255]).all(-1).sum() > 50
    assert "animal" not in describe(random.Random(0), ["animal face", "wild beast", "furry friend"], "animal-mammal")
