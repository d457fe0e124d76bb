"""Data without splits, a share of which is held out: folders, metadata and tables as people have them."""

import json
import shutil

import numpy as np
import pytest

from exmem.errors import DataError, DataWarning, SchemaError
from exmem.train.data import Columns, load_data
from exmem.train.data.layouts import read_data
from tests.train.data.writing import image, write_csv

IMAGES = Columns(needs_text=False)
TEXTS = Columns(needs_image=False)


def write_classes(root, counts):
    for name, count in counts.items():
        for number in range(count):
            image(root / name / f"photo ({number}) [x].jpg")
    return root


def write_metadata(root, count=10):
    rows = []
    for number in range(count):
        image(root / "photos" / f"{number}.jpg")
        rows.append([f"photos/{number}.jpg", f"text {number}", "cat" if number % 2 else "dog"])
    write_csv(root / "metadata.csv", rows)
    return root


def test_a_fifth_of_each_class_is_held_out_by_class_and_seed_alone(tmp_path):
    root = write_classes(tmp_path / "mine", {"cats": 10, "dögs": 5, "one": 1, "two": 2})
    (root / ".DS_Store").write_text("x")
    train, test = load_data(root, IMAGES, layout="undivided")
    assert train.class_names == test.class_names == ("cats", "dögs", "one", "two")
    assert np.bincount(train.labels).tolist() == [8, 4, 1, 1]
    assert np.bincount(test.labels, minlength=4).tolist() == [2, 1, 0, 1]
    assert {*train.ids}.isdisjoint(test.ids)
    assert "cats/photo (0) [x].jpg" in {*train.ids, *test.ids}
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert [one.key() for one in load_data(moved, IMAGES, layout="undivided")] == [train.key(), test.key()]
    assert np.bincount(load_data(root, IMAGES, layout="undivided:test_ratio=0.5")[1].labels).tolist() == [5, 2, 0, 1]
    assert load_data(root, IMAGES, layout="undivided:seed=1")[1].ids != test.ids
    shutil.rmtree(moved / "dögs")
    left = load_data(moved, IMAGES, layout="undivided")[1].ids
    assert left == tuple(name for name in test.ids if not name.startswith("dögs"))
    notes = read_data(root, IMAGES, "undivided").notes
    assert notes[0].endswith("mine: it has no splits; 20% of each class are for the test, drawn by the seed 0")
    assert notes[1].endswith("1 classes of one example have none in the test: ['one']")


def test_almost_all_may_be_held_out_but_one_of_each_class_is_learnt(tmp_path):
    root = write_classes(tmp_path, {"a": 3, "b": 2})
    train, test = load_data(root, IMAGES, layout="undivided:test_ratio=0.99")
    assert (np.bincount(train.labels).tolist(), np.bincount(test.labels).tolist()) == ([1, 1], [2, 1])


def test_metadata_and_tables_are_divided_too(tmp_path):
    root = write_metadata(tmp_path / "with texts")
    train, test = load_data(root, layout="undivided")
    assert (len(train), len(test)) == (8, 2)
    assert all(text == f"text {name[7:-4]}" for name, text in zip(train.ids, train.texts, strict=True))
    (root / "metadata.csv").rename(root / "all.csv")
    assert [one.ids for one in load_data(root / "all.csv", layout="undivided")] == [train.ids, test.ids]
    lines = [json.dumps({"text": f"text {number}", "label": number % 2}) for number in range(20)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    learnt, tested = load_data(tmp_path / "texts.jsonl", TEXTS, layout="undivided")
    assert {*learnt.texts} | {*tested.texts} == {f"text {number}" for number in range(20)}
    assert np.bincount(tested.labels).tolist() == [2, 2]


def test_a_column_of_splits_is_told_to_be_left_out(tmp_path):
    rows = []
    for number in range(6):
        image(tmp_path / f"{number}.jpg")
        rows.append([f"{number}.jpg", "x", "ab"[number % 2], "train"])
    write_csv(tmp_path / "all.csv", rows, ("file_name", "text", "label", "split"))
    with pytest.warns(DataWarning, match="the column 'split' is not looked at"):
        assert len(load_data(tmp_path / "all.csv", layout="undivided")[1]) == 2


def test_what_is_broken_is_named_once_and_may_be_skipped(tmp_path):
    root = write_classes(tmp_path, {"a": 5, "b": 5})
    image(root / "loose.jpg")
    (root / "a" / "photo (0) [x].jpg").write_bytes(b"")
    reading = read_data(root, IMAGES, "undivided")
    assert [line.partition(": ")[2].partition(";")[0] for line in reading.problems] == [
        "expected an image, got an empty file",
        "lies in no folder of a class",
    ]
    with pytest.raises(DataError, match=r"got an empty file.* \(and 1 more: `exmem data"):
        load_data(root, IMAGES, layout="undivided")
    with pytest.warns(DataWarning, match="2 broken examples are skipped"):
        train, test = load_data(root, IMAGES, layout="undivided", skip_bad=True)
    assert (len(train), len(test)) == (7, 2)


def test_what_cannot_be_divided_is_told(tmp_path):
    for split in ("train", "val"):
        write_classes(tmp_path / "done" / split, {"a": 2, "b": 2})
    with pytest.raises(DataError, match="done: it is divided already, got train, val; leave out the layout"):
        load_data(tmp_path / "done", IMAGES, layout="undivided")
    root = write_classes(tmp_path / "lone", {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"lone \(test\): expected at least one example, got none"):
        load_data(root, IMAGES, layout="undivided")
    with pytest.raises(DataError, match=r"lone: expected a metadata.jsonl or metadata.csv with the columns"):
        load_data(root, layout="undivided")
    with pytest.raises(SchemaError, match="test_ratio must be above 0 and below 1, got 1"):
        load_data(root, IMAGES, layout="undivided:test_ratio=1")
    with pytest.raises(DataError, match=r"expected a folder of images without splits, or a table, got a name on"):
        load_data("hf:someone/something", IMAGES, layout="undivided")


def test_where_splits_lack_the_layout_is_named(tmp_path):
    root = write_metadata(tmp_path)
    with pytest.raises(DataError, match=r"expected the folders train/ and test/.* with data.layout undivided"):
        load_data(root)
    (root / "metadata.csv").rename(root / "all.csv")
    with pytest.raises(DataError, match=r"expected the column 'split'.* with data.layout undivided"):
        load_data(root / "all.csv")
