"""Folders of images and texts, and packages that carry data."""

import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exmem.backbones.packaged.fetching import Carrier, build_once, fetch
from exmem.cli.demo.stickers.compose import compose, sample_photographs
from exmem.cli.demo.stickers.concepts import describe
from exmem.errors import DataError, DataWarning
from exmem.train.data import Columns, ImageText, load_data
from tests.exemplars import crop


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        rows = []
        for index, label in enumerate(["10", "9"]):
            Image.fromarray(crop(index, 60)[:, :50]).save(tmp_path / "data" / split / f"{index}.png")
            rows.append({"file_name": f"{index}.png", "text": f"text {index}", "label": label})
        write(tmp_path / "data" / split, rows)
    return tmp_path / "data"


def load(folder, **columns):
    """Both splits of a folder in the form of `imagefolder`."""
    return load_data(folder, Columns(**columns), layout="imagefolder")


def write(split, rows):
    (split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_folder_gives_images_texts_and_sorted_classes(folder):
    train, test = load(folder)
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
    assert load(folder)[0].class_names == ("001", "01", "1", "2", "b")


def test_images_are_cut_around_their_centre_to_any_shape(folder):
    train, _ = load(folder)  # 50 wide, 60 high
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
        load(folder)


def test_missing_metadata_columns_and_images_are_named(folder):
    with pytest.raises(DataError, match="name yours with text_column"):
        load(folder, text="caption")
    train, _ = load(folder)
    (folder / "train" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png: expected an image"):
        train.image(0, 40)
    (folder / "train" / "metadata.jsonl").unlink()
    with pytest.raises(DataError, match=r"expected a metadata\.jsonl"):
        load(folder)


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(crop(seed, 16)).save(path)


def write_csv(folder, text, *, encoding="utf-8", test="file_name,text,label\n0.png,t,a\n"):
    """Those rows for training and for the test, with the images they name."""
    for split, content in (("train", text), ("test", test)):
        (folder / split).mkdir()
        for row in range(4):
            if f"{row}.png" in content.lower():
                image(folder / split / f"{row}.png", row)
        (folder / split / "metadata.csv").write_bytes(content.encode(encoding if split == "train" else "utf-8"))


def rows_of(data):
    names = [data.class_names[label] for label in data.labels]
    return list(zip([path.name for path in data.paths], data.texts, names, strict=True))


def load_with_all_labels(folder):
    rows = [{"file_name": f"{row}.png", "text": "t", "label": "9"} for row in range(2)]
    write(folder / "test", rows)
    return load(folder)


STRANGE_NAMES = [
    "data [1]",
    "what?",
    "a*b",
    "{a,b}",
    "two words ",
    "süß 図",
    "hf:",
    "memory::x",
    "zip:::a",
    "50%20",
    "a'b\"c",
]


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_a_folder_may_have_any_name_and_its_siblings_stay_out(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "data 1")
    shutil.copytree(folder, tmp_path / "aXb")
    place = folder.rename(tmp_path / name)
    train, _ = load(place)
    assert [path.parent for path in train.paths] == [place / "train"] * 2
    assert train.image(0, 8).shape == (8, 8, 3)


def test_a_path_that_looks_like_an_address_is_a_path(folder, tmp_path):
    place = tmp_path / "hf:" / "datasets" / "x[0-9]"
    place.parent.mkdir(parents=True)
    folder.rename(place)
    assert len(load(f"{tmp_path}/hf://datasets/x[0-9]")[0]) == 2


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_of_a_spreadsheet_is_read_as_it_is_meant(tmp_path, separator, newline, mark):
    lines = [
        "file_name,text,label",
        '0.png,"one, two; and\nthree ""quoted""",a',
        "1.png,NA,a",
        "2.png,,a",
        "3.png,7.50,a",
    ]
    lines = [line if '"' in line else line.replace(",", separator) for line in lines]
    lines[1] = separator.join(["0.png", '"one, two; and\nthree ""quoted"""', "a"])
    write_csv(tmp_path, mark + newline.join([*lines, separator * 2, "", ""]))
    assert rows_of(load(tmp_path)[0]) == [
        ("0.png", 'one, two; and\nthree "quoted"', "a"),
        ("1.png", "NA", "a"),
        ("2.png", "", "a"),
        ("3.png", "7.50", "a"),
    ]


def test_words_that_mean_nothing_elsewhere_stay_texts(tmp_path):
    words = ["NA", "null", "None", "nan"]
    write_csv(tmp_path, "file_name,text,label\n" + "".join(f"{row}.png,{word},a\n" for row, word in enumerate(words)))
    assert list(load(tmp_path)[0].texts) == words


def test_a_class_of_such_a_word_is_warned_of(tmp_path):
    write_csv(tmp_path, "file_name,text,label\n0.png,t,a\n1.png,t,NA\n")
    with pytest.warns(DataWarning, match="'NA' are taken as names of classes; drop the rows"):
        assert load(tmp_path)[0].class_names == ("NA", "a")


def test_one_and_one_point_nought_are_one_class_and_told(tmp_path):
    test = "file_name,text,label\n0.png,t,2\n1.png,t,1\n"
    write_csv(tmp_path, "file_name,text,label\n0.png,t,1\n1.png,t,1.0\n2.png,t,2.0\n3.png,t,1.5\n", test=test)
    with pytest.warns(DataWarning, match="2 labels of metadata.csv are written as 1.0 and taken as 1"):
        train, test = load(tmp_path)
    assert train.class_names == ("1", "2", "1.5")
    assert train.labels.tolist() == [0, 0, 1, 2]
    assert test.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "file_name,text,label\n0.png,t,a\n1.png,t,\n",
            r"1\.png \(metadata.csv line 3\): expected a label, got nothing",
        ),
        (
            "file_name,text,label\n0.png,t, \n",
            r"0\.png \(metadata.csv line 2\): expected a label, got nothing; fill it",
        ),
        ("file_name,text,label\n0.png,t\n", r"0\.png \(metadata.csv line 2\): expected a label, got nothing"),
        ("file_name,text,label\n0.png,one, two,a\n", r"line 2: expected 3 cells, got 4; put quotes around a text"),
        ('file_name,text,label\n0.png,"a\nb",a\n1.png,"x,a\n', r"line 4: unexpected end of data; write a quote within"),
        ("file_name,text,label\n", r"train/metadata.csv: expected at least one example, got none; add it"),
        ("file_name,text,label\n,,\n", r"train/metadata.csv: expected at least one example"),
        ("", r"metadata.csv: expected a first line with the names of the columns, got an empty file"),
        ("file;text;label\n", r"expected a first line with the column 'file_name', got the columns \['file', 'text'"),
        ("file_name,label,label,text\n", r"the columns \['label'\] are there twice"),
        ("file_name,text,label\n9.png,t,a\n", r"train/9\.png \(metadata.csv line 2\): no such image; add it or drop"),
        ("file_name,text,label\n../a.png,t,a\n", r"line 2: expected the name of a file in .*, got '../a.png'; correct"),
        ("file_name,text,label\n/etc/x.png,t,a\n", r"line 2: expected the name of a file in .*, got '/etc/x.png'"),
        ("file_name,text,label\n,t,a\n", r"line 2: expected the name of a file in .*, got nothing; correct"),
        ("file_name,text,label\n.,t,a\n", r"line 2: expected the name of a file"),
        ("file_name,text,label\n0.PNG,t,a\n", r"no such image \(there is '0.png', written otherwise\); add it"),
        ("file_name,text,label\n8.png,t,a\n9.png,t,a\n", r"\(and 1 more: `exmem data .*` lists them\)"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line_with_the_remedy(tmp_path, lines, message):
    write_csv(tmp_path, lines)
    with pytest.raises(DataError, match=message) as refused:
        load(tmp_path)
    assert str(refused.value).startswith(str(tmp_path / "train"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("latin-1", "line 3: expected UTF-8, got the byte 0xfc"), ("utf-16", "UTF-16")]
)
def test_a_table_in_another_encoding_is_refused_with_the_remedy(tmp_path, encoding, shown):
    write_csv(tmp_path, "file_name,text,label\n0.png,t,a\n1.png,süß,a\n", encoding=encoding)
    with pytest.raises(DataError, match=rf"{shown}.*; save it in UTF-8 \(in Excel"):
        load(tmp_path)


def test_numbers_in_json_are_texts_and_classes_without_a_lost_digit(folder):
    lines = [
        '{"file_name": "0.png", "text": 1.50, "label": 1}',
        '{"file_name": "1.png", "text": 12345678901234567890, "label": 1.0}',
        '{"file_name": "1.png", "text": "x", "label": "2"}',
    ]
    for split in ("train", "test"):
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.warns(DataWarning, match="1 labels of metadata.jsonl are written as 1.0"):
        train, _ = load(folder)
    assert train.texts == ("1.50", "12345678901234567890", "x")
    assert train.class_names == ("1", "2")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"file_name": "0.png", "text": null, "label": "9"}',
            r"0\.png \(metadata.jsonl line 2\): expected a text, got noth",
        ),
        ('{"file_name": "0.png", "text": NaN, "label": "9"}', r"line 2\): expected a text, got nothing"),
        ('{"file_name": "0.png", "label": "9"}', r"line 2\): expected a text, got nothing; write an empty string"),
        ('{"file_name": "0.png", "text": ["a"], "label": "9"}', r"line 2\): expected a text, got \['a'\]"),
        ('{"file_name": "0.png", "text": "t"}', r"line 2\): expected a label, got nothing; fill it in or drop the row"),
        ('{"file_name": "0.png", "text": "t", "label": NaN}', r"line 2\): expected a label, got nothing"),
        ('{"file_name": "0.png", "text": "t", "label": {"a": 1}}', r"line 2\): expected a label, got {'a'"),
        ('{"text": "t", "label": "9"}', r"metadata.jsonl line 2: expected the name of a file in .*, got nothing"),
        ('{"file_name": "0.png", "te', r"metadata.jsonl line 2: expected one JSON object, got Unterminated string"),
        ("[1]", r"metadata.jsonl line 2: expected one JSON object, got a list; write one object a line"),
        ('{"file_name": "0.png", "text": "\\ud800", "label": "9"}', r"line 2: expected texts, got half of a character"),
        ('{"file_name": "0\\u0000.png", "text": "t", "label": "9"}', r"line 2: expected the name of a file"),
    ],
)
def test_a_wrong_line_of_json_is_named_by_its_number(folder, line, message):
    good = '{"file_name": "1.png", "text": "t", "label": "9"}\n'
    (folder / "train" / "metadata.jsonl").write_text(good + line + "\n\n" + good)
    with pytest.raises(DataError, match=message) as refused:
        load(folder)
    assert "\n" not in str(refused.value)


def test_json_without_rows_and_without_files_is_refused(folder):
    (folder / "train" / "metadata.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"metadata.jsonl: expected at least one example, got none"):
        load(folder)
    (folder / "train" / "metadata.jsonl").write_text('{"name": "0.png", "text": "t", "label": "9"}\n')
    with pytest.raises(DataError, match=r"expected the column 'file_name', got \['name', 'text', 'label'\]; rename"):
        load(folder)
    (folder / "train" / "metadata.csv").write_text("file_name,text,label\n")
    with pytest.raises(DataError, match=r"metadata.jsonl and metadata.csv; keep the one that is meant"):
        load(folder)


def test_classes_that_look_alike_are_warned_of_and_stay_apart(folder):
    names = ["Café", unicodedata.normalize("NFD", "Café"), "cat", "cat ", "Cat"]
    rows = [{"file_name": f"{row % 2}.png", "text": "t", "label": name} for row, name in enumerate(names)]
    write(folder / "train", rows)
    write(folder / "test", rows[:2])
    with pytest.warns(DataWarning) as warned:
        train, _ = load(folder)
    assert set(train.class_names) == set(names)
    assert sorted(str(line.message).removeprefix(f"{folder}: ") for line in warned) == [
        "the classes 'Cafe\\u0301', 'Caf\\xe9' look alike and stay apart; write them alike if they are one",
        "the classes 'Cat', 'cat', 'cat ' look alike and stay apart; write them alike if they are one",
    ]


def test_a_table_that_was_rewritten_with_its_old_time_is_read_again(folder):
    metadata = folder / "train" / "metadata.jsonl"
    load(folder)
    times = metadata.stat()
    metadata.write_text(metadata.read_text().replace('"10"', '"9" '))
    os.utime(metadata, ns=(times.st_atime_ns, times.st_mtime_ns))
    write(folder / "test", [{"file_name": "0.png", "text": "t", "label": "9"}])
    with pytest.warns(DataWarning, match="1 images have no row"):
        assert load(folder)[0].class_names == ("9",)


@pytest.mark.parametrize(
    ("kind", "loading", "decoding"),
    [
        ("missing", "no such image; add it or drop its row", "got nothing, the file is missing"),
        ("folder", "expected an image, got a folder", "got a folder; replace it"),
        ("empty", "expected an image, got an empty file; replace it", "got an empty file; replace it"),
        ("text", None, "got a file in no form that Pillow reads; replace it or leave it out"),
        ("half", None, "got image file is truncated.*; replace it or leave it out"),
    ],
)
def test_a_broken_image_is_refused_in_one_line(folder, kind, loading, decoding):
    path = folder / "train" / "0.png"
    train, _ = load(folder)
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"no image", "half": content[: len(content) // 2]}[kind])
    with pytest.raises(DataError, match=rf"^{path}: expected an image, {decoding}") as refused:
        train.image(0, 8)
    assert "\n" not in str(refused.value)
    if loading is None:
        load(folder)
    else:
        with pytest.raises(DataError, match=rf"^{path} \(metadata.jsonl line 1\): {loading}"):
            load(folder)


def test_texts_may_be_missing_where_images_alone_are_learnt(folder):
    write(folder / "train", [{"file_name": "0.png", "label": "9"}, {"file_name": "1.png", "label": "9"}])
    with pytest.raises(DataError, match=r"lacks the columns \['text'\], it has \['file_name', 'label'\]"):
        load(folder)
    with pytest.raises(DataError, match="train lacks"):  # the test has texts and a class more
        load(folder, needs_text=False)
    write(folder / "test", [{"file_name": f"{row}.png", "text": None, "label": "9"} for row in range(2)])
    for options in ({"needs_text": False}, {"text": None}, {"text": None, "needs_text": False}):
        train, test = load(folder, **options)
        assert (train.texts, test.texts) == (("", ""), ("", ""))


def test_a_text_column_that_is_not_wanted_is_not_read(folder):
    assert load(folder, text=None)[0].texts == ("", "")
    assert load(folder, needs_text=False)[0].texts == ("text 0", "text 1")


def test_other_names_of_columns_are_taken(folder):
    for split in ("train", "test"):
        write(folder / split, [{"file_name": f"{row}.png", "caption": f"c{row}", "kind": "k"} for row in range(2)])
    train, _ = load(folder, text="caption", label="kind")
    assert (train.texts, train.class_names) == (("c0", "c1"), ("k",))


def test_folders_of_classes_need_no_metadata(tmp_path):
    for split in ("train", "test"):
        image(tmp_path / split / "10" / "a.png")
        image(tmp_path / split / "9" / "sub" / "b.JPG")
        image(tmp_path / split / ".hidden" / "c.png")
        (tmp_path / split / "9" / ".DS_Store").write_bytes(b"x")
    with pytest.raises(DataError, match=r"ask for no texts \(modalities image\): then a folder for each class will do"):
        load(tmp_path)
    train, test = load(tmp_path, needs_text=False)
    assert train.class_names == test.class_names == ("9", "10")
    assert train.ids == ("train/10/a.png", "train/9/sub/b.JPG")
    assert (train.labels.tolist(), train.texts) == ([1, 0], ("", ""))


def test_what_does_not_belong_in_folders_of_classes_is_told_or_refused(tmp_path):
    for split in ("train", "test"):
        image(tmp_path / split / "a" / "a.png")
    (tmp_path / "train" / "a" / "b.heic").write_bytes(b"x")
    with pytest.warns(DataWarning, match=r"train: 1 files are no images and are left out \(1 of .heic\)"):
        load(tmp_path, needs_text=False)
    (tmp_path / "train" / "a" / "b.heic").unlink()
    image(tmp_path / "train" / "loose.png")
    with pytest.raises(DataError, match=r"train/loose.png: lies in no folder of a class; move it into one"):
        load(tmp_path, needs_text=False)
    (tmp_path / "train" / "loose.png").rename(tmp_path / "train" / "a" / "metadata.csv")
    with pytest.raises(DataError, match=r"a/metadata.csv: metadata belongs in .*train, as metadata.jsonl or"):
        load(tmp_path, needs_text=False)
    (tmp_path / "train" / "a" / "metadata.csv").unlink()
    (tmp_path / "test" / "a" / "a.png").unlink()
    with pytest.raises(DataError, match=r"or a folder of images for each class, got a; write one of them"):
        load(tmp_path, needs_text=False)


def test_images_without_a_row_are_warned_of_with_their_number(folder):
    for name in ("2.png", "sub/3.jpg", ".hidden.png"):
        image(folder / "train" / name)
    with pytest.warns(DataWarning, match=rf"^{folder}/train: 2 images have no row in metadata.jsonl and are left out$"):
        assert len(load(folder)[0]) == 2


def test_an_image_may_have_several_rows(folder):
    row = {"file_name": "0.png", "text": "a", "label": "9"}
    write(folder / "train", [row, row | {"text": "b"}, row | {"file_name": "./1.png"}, row])
    train, _ = load_with_all_labels(folder)
    assert rows_of(train) == [("0.png", "a", "9"), ("0.png", "a", "9"), ("0.png", "b", "9"), ("1.png", "a", "9")]


def test_names_of_files_may_come_from_windows(folder):
    image(folder / "train" / "sub" / "2.png")
    rows = [{"file_name": name, "text": "t", "label": "9"} for name in ("0.png", "1.png", "sub\\2.png")]
    write(folder / "train", rows)
    assert load_with_all_labels(folder)[0].ids == ("train/0.png", "train/1.png", "train/sub/2.png")


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_a_validation_split_stands_for_a_missing_test_and_this_is_said(folder, name):
    (folder / "test").rename(folder / name)
    with pytest.warns(DataWarning, match=rf"there is no test/, {name}/ is taken for it"):
        assert load(folder)[1].ids[0] == f"{name}/0.png"


def test_splits_that_are_missing_or_not_clear_are_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: expected a folder with train/ and test/, got nothing there"):
        load(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"expected the folders train/ and test/ \(or validation/\), got 0.png, 1.png, meta"
    ):
        load(folder / "train")
    shutil.copytree(folder / "test", folder / "val")
    assert load(folder)[1].ids[0] == "test/0.png"
    (folder / "test").rename(folder / "valid")
    with pytest.raises(DataError, match=r"expected one folder for the test, got \['valid', 'val'\]; name the one"):
        load(folder)


def test_links_are_followed_and_a_circle_of_them_ends(folder, tmp_path):
    image(tmp_path / "elsewhere" / "2.png")
    (folder / "train" / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "circle").symlink_to(folder / "train")
    rows = [{"file_name": name, "text": "t", "label": "9"} for name in ("0.png", "1.png", "link/2.png")]
    write(folder / "train", rows)
    assert len(load_with_all_labels(folder)[0]) == 3


def test_the_key_is_of_the_content_and_not_of_place_or_time(folder, tmp_path):
    first = [data.key() for data in load(folder)]
    assert first[0] != first[1]
    other = tmp_path / "elsewhere" / "copied"
    shutil.copytree(folder, other, copy_function=shutil.copy)
    os.utime(other / "train" / "0.png", (1, 1))
    assert [data.key() for data in load(other)] == first
    train = load(other)[0]
    assert train.subset([1, 0]).key() != train.key() == train.subset([0, -1]).key()
    content = (other / "train" / "0.png").read_bytes()
    (other / "train" / "0.png").write_bytes(content[:-1] + b"?")
    os.utime(other / "train" / "0.png", (1, 1))
    assert train.key() != first[0]
    (other / "train" / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png: expected an image, got No such file"):
        train.key()


@pytest.mark.parametrize("change", ["text", "label", "class", "id"])
def test_each_of_texts_labels_classes_and_names_is_in_the_key(folder, change):
    paths = [folder / "train" / "0.png", folder / "train" / "1.png"]
    values = {"text": ["a", "b"], "label": [0, 1], "class": ["x", "y"], "id": ["0", "1"]}
    one = ImageText(paths, values["text"], values["label"], values["class"], ids=values["id"])
    values[change] = {"text": ["a", "c"], "label": [0, 0], "class": ["x", "z"], "id": ["0", "2"]}[change]
    other = ImageText(paths, values["text"], values["label"], values["class"], ids=values["id"])
    assert one.key() != other.key()


def test_a_data_set_of_datasets_is_wrapped_with_its_images_inside(folder):
    import datasets

    files = [str(folder / "train" / f"{row}.png") for row in range(2)]
    inside = [{"bytes": Path(file).read_bytes(), "path": None} for file in files]
    for images in (files, inside):
        table = datasets.Dataset.from_dict({"image": images, "label": [1, 0]})
        kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
        for name, kind in kinds.items():
            table = table.cast_column(name, kind)
        data = ImageText.from_dataset(table)
        assert (data.class_names, data.labels.tolist(), data.texts) == (("a", "b"), [1, 0], ("", ""))
        np.testing.assert_array_equal(data.image(1, 50), crop(1, 60)[5:55, :50])
        assert len(data.key()) == 32
        copy = pickle.loads(pickle.dumps(data.subset([1])))
        np.testing.assert_array_equal(copy.image(0, 50), data.image(1, 50))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"img": ["a"], "label": ["x"]}, r"the column 'image' of the kind Image.*use rename_column\(column, 'image'\)"),
        ({"image": ["a"], "label": ["x"]}, r"the column 'label' of the kind ClassLabel.*class_encode_column"),
        ({"image": ["a"], "label": [0], "text": [None]}, r"expected a text in every row, got none in the rows \[0\]"),
        ({"image": ["a"], "label": [-1], "text": [""]}, r"expected labels from 0 to 0, .*got -1 to -1; name every"),
    ],
)
def test_a_data_set_of_another_form_is_refused_with_the_remedy(columns, message):
    import datasets

    table = datasets.Dataset.from_dict(columns)
    if "image" in columns:
        table = table.cast_column("image", datasets.Image())
    if columns["label"] != ["x"]:
        table = table.cast_column("label", datasets.ClassLabel(names=["x"]))
    with pytest.raises(DataError, match=message):
        ImageText.from_dataset(table)


def test_reading_a_folder_imports_no_torch(folder):
    script = "import sys, exmem.train.data as d; d.load_data(sys.argv[1]); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


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
