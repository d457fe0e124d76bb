"""Data without splits, a share of which is held out: folders, metadata, tables and sets as people have them."""

import json
import shutil

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exmem.errors import DataError, DataWarning, SchemaError
from exmem.train.data import Columns, load_data
from exmem.train.data.layouts import read_data
from tests.train.data.writing import image, write_csv

IMAGES = Columns(needs_text=False)
TEXTS = Columns(needs_image=False)


def write_classes(root, counts, first=0):
    seed = first
    for name, count in counts.items():
        for number in range(count):
            image(root / name / f"photo ({number}) [x].png", seed)
            seed += 1
    return root


def write_metadata(root, count=40, header=("file_name", "text", "label"), more=()):
    rows = []
    for number in range(count):
        image(root / "photos" / f"{number}.png", number)
        rows.append([f"photos/{number}.png", f"text {number}", "cat" if number % 2 else "dog", *more])
    write_csv(root / "metadata.csv", rows, header)
    return root


def write_texts(path, texts):
    path.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in texts))
    return path


def divided(place, columns=IMAGES, layout="undivided", **options):
    return load_data(place, columns, layout=layout, **options)


def test_about_a_fifth_is_held_out_by_the_images_and_the_seed(tmp_path):
    root = write_classes(tmp_path / "mine", {"cats": 100, "dögs": 60, "one": 1, "two": 2})
    (root / ".DS_Store").write_text("x")
    train, test = divided(root)
    assert train.class_names == test.class_names == ("cats", "dögs", "one", "two")
    assert len(train) + len(test) == 163
    assert 20 <= len(test) <= 48
    assert np.bincount(train.labels)[2:].tolist() == [1, 1]
    assert np.bincount(test.labels, minlength=4)[2:].tolist() == [0, 1]
    assert {*train.ids}.isdisjoint(test.ids)
    assert "cats/photo (0) [x].png" in {*train.ids, *test.ids}
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert [one.key() for one in divided(moved)] == [train.key(), test.key()]
    assert divided(root, layout="undivided:seed=1")[1].ids != test.ids
    assert 60 < len(divided(root, layout="undivided:test_ratio=0.5")[1]) < 104
    notes = read_data(root, IMAGES, "undivided").notes
    assert notes[0].endswith(f"mine: it has no splits; {len(test)} of 163 examples are for the test")
    assert notes[1].endswith("1 classes of one image, or one text, have none in the test: ['one']")


def test_what_is_named_otherwise_added_or_taken_away_moves_no_other_image(tmp_path):
    root = write_classes(tmp_path / "mine", {"a": 50, "b": 50})
    tested = {*divided(root)[1].ids}
    write_classes(root, {"c": 30}, first=500)
    image(root / "a" / "new.png", 900)
    assert {name for name in divided(root)[1].ids if name[0] != "c" and "new" not in name} == tested
    for number in range(0, 50, 7):
        (root / "a" / f"photo ({number}) [x].png").unlink()
    assert {name for name in divided(root)[1].ids if name[0] == "b"} == {name for name in tested if name[0] == "b"}
    (root / "b").rename(root / "other")
    assert {name[6:] for name in divided(root)[1].ids if name[0] == "o"} == {n[2:] for n in tested if n[0] == "b"}


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(2, 6), min_size=2, max_size=4), ratio=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_every_class_of_two_texts_has_one_on_both_sides_and_no_text_has_both(tmp_path_factory, counts, ratio, seed):
    texts = [(f"{label} {number}", f"c{label}") for label, count in enumerate(counts) for number in range(count)]
    place = write_texts(tmp_path_factory.mktemp("texts") / "all.jsonl", texts * 2)
    train, test = divided(place, TEXTS, f"undivided:test_ratio={ratio},seed={seed}")
    assert {*train.texts}.isdisjoint(test.texts)
    assert {*train.texts} | {*test.texts} == {text for text, _ in texts}
    for one in (train, test):
        assert {*one.labels.tolist()} == {*range(len(counts))}


def test_an_image_of_several_rows_or_copied_is_on_one_side(tmp_path):
    root = write_metadata(tmp_path)
    lines = (root / "metadata.csv").read_text().splitlines()
    (root / "metadata.csv").write_text("\n".join([*lines, *(line.replace("text", "other") for line in lines[1:])]))
    train, test = divided(root, Columns())
    assert {*train.paths}.isdisjoint(test.paths)
    assert (len(train) + len(test), len(test) % 2) == (80, 0)
    copies = write_classes(tmp_path / "copies", {"a": 30, "b": 30})
    for path in sorted((copies / "a").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    train, test = divided(copies)
    assert not {name.replace("copy of ", "") for name in train.ids} & {
        name.replace("copy of ", "") for name in test.ids
    }


def test_metadata_tables_and_sets_are_divided_alike(tmp_path):
    root = write_metadata(tmp_path / "with texts")
    train, test = divided(root, Columns())
    assert all(text == f"text {name[7:-4]}" for name, text in zip(train.ids, train.texts, strict=True))
    (root / "metadata.csv").rename(root / "all.csv")
    assert [one.ids for one in divided(root / "all.csv", Columns())] == [train.ids, test.ids]
    files = [root / "photos" / f"{number}.png" for number in range(40)]
    rows = {
        "image": [{"path": None, "bytes": file.read_bytes()} for file in files],
        "label": ["dog", "cat"] * 20,
    }
    held = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image(decode=False))
    held.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": held}).save_to_disk(tmp_path / "one split")
    held.to_parquet(tmp_path / "all.parquet")
    for place in ("saved", "one split", "all.parquet"):
        assert len(divided(tmp_path / place)[1]) == len(test), place
    datasets.DatasetDict({"train": held, "test": held}).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match=r"both: it is divided already, got \['train', 'test'\]; leave out the layout"):
        divided(tmp_path / "both")


def test_rows_may_change_their_order(tmp_path):
    texts = [(f"text {number}", f"c{number % 2}") for number in range(60)]
    first = divided(write_texts(tmp_path / "one.jsonl", texts), TEXTS)[1].texts
    again = divided(write_texts(tmp_path / "two.jsonl", texts[::-1]), TEXTS)[1].texts
    assert {*first} == {*again}


def test_what_is_broken_is_named_once_and_leaving_it_out_moves_nothing(tmp_path):
    root = write_classes(tmp_path, {"a": 20, "b": 20})
    image(root / "loose.png")
    (root / "a" / "photo (0) [x].png").write_bytes(b"")
    whole = (root / "a" / "photo (1) [x].png").read_bytes()
    (root / "a" / "photo (1) [x].png").write_bytes(whole[: len(whole) // 2])
    reading = read_data(root, IMAGES, "undivided")
    assert [line.partition(": ")[2].partition(";")[0] for line in reading.problems] == [
        "expected an image, got an empty file",
        "lies in no folder of a class",
    ]
    with pytest.raises(DataError, match=r"got an empty file.* \(and 1 more: `exmem data .*left out with data.skip_bad"):
        divided(root)
    with pytest.warns(DataWarning, match="3 broken examples are skipped"):
        skipped = divided(root, skip_bad=True)
    for name in ("loose.png", "a/photo (0) [x].png", "a/photo (1) [x].png"):
        (root / name).unlink()
    assert [one.key() for one in divided(root)] == [one.key() for one in skipped]


def test_what_is_divided_already_is_told(tmp_path):
    for split in ("Train", "val"):
        write_classes(tmp_path / "done" / split, {"a": 2, "b": 2})
    with pytest.raises(
        DataError, match="done: expected no folders of splits, got Train, val; name them train and test"
    ):
        divided(tmp_path / "done")
    write_classes(tmp_path / "half" / "train", {"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"half: expected no folders of splits, got train; give .*half/train$"):
        divided(tmp_path / "half")
    with pytest.raises(DataError, match=r"held out: .*half/train with data.layout undivided"):
        load_data(tmp_path / "half", IMAGES)
    write_classes(tmp_path / "vehicles", {"car": 2, "train": 2})
    assert divided(tmp_path / "vehicles")[0].class_names == ("car", "train")
    root = write_metadata(tmp_path / "named", 4, ("file_name", "text", "label", "split"), ["train"])
    for place in (root, root / "metadata.csv"):
        with pytest.raises(
            DataError, match=r"metadata.csv: its column 'split' divides it already; give .*metadata.csv"
        ):
            divided(place)


def test_what_cannot_be_divided_is_told(tmp_path):
    root = write_classes(tmp_path / "lone", {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"lone \(test\): expected at least one example, got none"):
        divided(root)
    with pytest.raises(DataError, match=r"lone: expected a metadata.jsonl or metadata.csv with the columns"):
        divided(root, Columns())
    for options in ("test_ratio=1", "test_ratio=0", "seed=-1"):
        with pytest.raises(SchemaError, match=f"{options.partition('=')[0]} must be"):
            divided(root, layout=f"undivided:{options}")


def test_where_splits_lack_the_layout_is_named(tmp_path):
    root = write_metadata(tmp_path)
    with pytest.raises(DataError, match=r"expected the folders train/ and test/.* with data.layout undivided"):
        load_data(root)
    (root / "metadata.csv").rename(root / "all.csv")
    with pytest.raises(DataError, match=r"expected the column 'split'.* with data.layout undivided"):
        load_data(root / "all.csv")
