"""Tables: CSV, TSV, JSON lines and Parquet, beside their images or with them inside."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from exmem.errors import DataError, DataWarning
from exmem.train.data import Columns, load_data
from exmem.train.data.layouts import read_data
from tests.exemplars import crop
from tests.train.data.writing import image, image_bytes, write_csv, write_tables

TEXTS = Columns(needs_image=False)
IMAGES = Columns(needs_text=False)


def as_jsonl(path):
    rows = path.read_text().splitlines()
    header, lines = rows[0].split(","), [row.split(",") for row in rows[1:]]
    text = "".join(json.dumps(dict(zip(header, line, strict=True))) + "\n" for line in lines)
    path.with_suffix(".jsonl").write_text(text)


def as_tsv(path):
    path.with_suffix(".TSV").write_text(path.read_text().replace(",", "\t"))


def as_parquet(path):
    pd.read_csv(path).to_parquet(path.with_suffix(".parquet"))


@pytest.mark.parametrize("write", [None, as_jsonl, as_tsv, as_parquet])
def test_tables_of_every_kind_give_the_same_examples(tmp_path, write):
    root = write_tables(tmp_path / "süß [1]")
    whole = [data.key() for data in load_data(root)]
    for split in ("train", "test") if write else ():
        write(root / f"{split}.csv")
        (root / f"{split}.csv").unlink()
    train, test = load_data(root)
    assert train.class_names == ("cat", "dog")
    assert test.texts == tuple(f"test text {row}" for row in range(4))
    assert train.ids[0] == "train/images/train0.png"
    np.testing.assert_array_equal(train.images([1], 16)[0], crop(1, 16))
    if write is not as_parquet:  # whose rows keep their order, which is the same here
        assert [train.key(), test.key()] == whole


def test_the_image_column_is_file_name_or_else_image_or_what_is_named(tmp_path):
    for name, columns in (("image", Columns()), ("file_name", Columns()), ("photo", Columns(image="photo"))):
        root = write_tables(tmp_path / name, header=(name, "text", "label"))
        assert len(load_data(root, columns)[0]) == 4
    with pytest.raises(
        DataError, match=r"the column 'file_name', got the columns \['photo', 'text', 'label'\].*--data"
    ):
        load_data(root)


def test_windows_paths_upper_case_suffixes_and_a_table_twice(tmp_path):
    root = write_tables(tmp_path)
    shutil.move(root / "images" / "train0.png", root / "images" / "train0.PNG")
    text = (root / "train.csv").read_text().replace("images/train0.png", "images\\train0.PNG")
    (root / "train.CSV").write_text(text)
    (root / "train.csv").unlink()
    assert load_data(root)[0].ids[0] == "train/images/train0.PNG"
    (root / "train.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"expected one table for train, got \['train.CSV', 'train.jsonl'\]; keep"):
        load_data(root)


def test_a_validation_table_stands_for_the_test_and_this_is_said(tmp_path):
    root = write_tables(tmp_path)
    (root / "test.csv").rename(root / "valid.csv")
    with pytest.warns(DataWarning, match="there is no table test, valid is taken for it"):
        assert len(load_data(root)[1]) == 4
    (root / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"expected the tables train and test \(or validation\).*column 'split'"):
        load_data(root, layout="tables")


def test_images_without_a_row_and_rows_that_repeat_are_told(tmp_path):
    root = write_tables(tmp_path)
    image(root / "images" / "new.jpg")
    (root / "train.csv").write_text((root / "train.csv").read_text() + "images/train0.png,again,dog\n")
    with pytest.warns(DataWarning, match="1 images have no row in the tables and are left out"):
        load_data(root)
    assert any("1 rows name an image that another row names" in line for line in read_data(root, Columns()).notes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("images/no.png,t,dog", r"images/no.png \(train.csv line 6\): no such image; add it or drop its row"),
        ("../a.png,t,dog", r"train.csv line 6: expected the name of a file in .*, got '../a.png'; correct 'file_name'"),
        (",t,dog", r"train.csv line 6: expected the name of a file in .*, got nothing"),
        ("images/train0.png,t,", r"images/train0.png \(train.csv line 6\): expected a label, got nothing; fill it in"),
    ],
)
def test_a_broken_row_is_named_and_skipped_only_when_asked(tmp_path, row, message):
    root = write_tables(tmp_path)
    whole = load_data(root)[0].key()
    (root / "train.csv").write_text((root / "train.csv").read_text() + row + "\n")
    with pytest.raises(DataError, match=message) as refused:
        load_data(root)
    assert "\n" not in str(refused.value)
    with pytest.warns(DataWarning, match=rf"1 broken examples are skipped: .*{message}"):
        train, _ = load_data(root, skip_bad=True)
    assert train.key() == whole


def test_texts_alone_need_no_images(tmp_path):
    for split in ("train", "test"):
        rows = [("good", "1"), ("bad", "0"), ("good", "1"), ("", "0")]
        write_csv(tmp_path / f"{split}.csv", rows, ("text", "label"))
    train, test = load_data(tmp_path, TEXTS)
    assert (train.texts, train.class_names) == (("good", "bad", "good", ""), ("0", "1"))
    assert (train.has_images, len(test)) == (False, 4)
    assert len({*train.ids}) == 4
    assert len({train.key(), test.key(), train.subset([0, 1]).key()}) == 3
    with pytest.raises(DataError, match=r"expected an image, got a text alone; add it, or use data.modalities text"):
        train.images([0], 16)
    with pytest.raises(DataError, match=r"expected a first line with the column 'file_name'"):
        load_data(tmp_path)
    assert any("rows have text and label of another row" in line for line in read_data(tmp_path, TEXTS).notes)


def test_images_that_texts_do_not_need_may_be_missing_or_broken(tmp_path):
    root = write_tables(tmp_path)
    (root / "images" / "train0.png").unlink()
    train, _ = load_data(root, TEXTS)
    assert (len(train), train.has_images) == (4, False)
    assert train.images([1], 16).shape == (1, 16, 16, 3)
    assert len(train.key()) == 32


def test_images_alone_need_no_texts(tmp_path):
    for split in ("train", "test"):
        image(tmp_path / f"{split}.png")
        write_csv(tmp_path / f"{split}.csv", [(f"{split}.png", 7)], ("file_name", "label"))
    assert load_data(tmp_path, IMAGES)[0].texts == ("",)
    with pytest.raises(DataError, match=r"lacks the columns \['text'\]"):
        load_data(tmp_path)


def split_rows(root):
    rows = []
    for row, split in enumerate(["train", "Test", " training", "test", "val"]):
        image(root / "images" / f"{row}.png", row)
        rows.append((f"images/{row}.png", f"text {row}", "cat", split))
    return rows


HEADER = ("file_name", "text", "label", "split")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_one_table_is_divided_by_its_column_of_splits(tmp_path, kind):
    path = write_csv(tmp_path / "all.csv", split_rows(tmp_path), HEADER)
    if kind == "parquet":
        path = path.with_suffix(".parquet")
        pd.read_csv(path.with_suffix(".csv")).to_parquet(path)
    train, test = load_data(path)
    assert (train.texts, test.texts) == (("text 0", "text 2"), ("text 1", "text 3"))
    assert any("1 rows of the split validation are left out" in line for line in read_data(path, Columns()).notes)


def test_a_column_of_splits_that_is_missing_strange_or_has_no_test_is_told(tmp_path):
    rows = split_rows(tmp_path)
    path = write_csv(tmp_path / "all.csv", [row[:3] for row in rows], HEADER[:3])
    with pytest.raises(DataError, match=r"expected the column 'split' .* name yours with split_column"):
        load_data(path)
    write_csv(path, rows, (*HEADER[:3], "fold"))
    assert len(load_data(path, Columns(split="fold"))[0]) == 2
    write_csv(path, [*rows, ("images/0.png", "t", "cat", "x")], HEADER)
    with pytest.raises(DataError, match=r"all.csv line 7: expected train, test or validation, got 'x'; correct it"):
        load_data(path)
    write_csv(path, [row for row in rows if "est" not in row[3]], HEADER)
    with pytest.warns(DataWarning) as told:
        assert load_data(path)[1].texts == ("text 4",)
    assert any("validation is taken for it" in str(line.message) for line in told)
    write_csv(path, rows[:1], HEADER)
    with pytest.raises(DataError, match="expected rows of the split test, got none; add them"):
        load_data(path)


def test_a_file_of_another_kind_and_nothing_at_all_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match=r"expected a folder, or a table \(.csv, .tsv, .jsonl, .parquet\), got another"):
        load_data(tmp_path / "a.txt")
    with pytest.raises(DataError, match="expected a folder with train/ and test/, got nothing there"):
        load_data(tmp_path / "no")


def test_a_folder_that_could_be_two_things_is_refused_until_it_is_said(tmp_path):
    root = write_tables(tmp_path)
    for split in ("train", "test"):
        image(root / split / "0.png")
        write_csv(root / split / "metadata.csv", [("0.png", "t", "other")])
    with pytest.raises(DataError, match=r"there are train.csv and train/metadata.csv; keep one.*data.layout tables"):
        load_data(root)
    assert load_data(root, layout="imagefolder")[0].class_names == ("other",)
    with pytest.warns(DataWarning, match="2 images have no row"):
        assert load_data(root, layout="tables")[0].class_names == ("cat", "dog")


def hugging_face(tmp_path, folder):
    """Parquet as Hugging Face writes it: images inside, classes by number with their names beside, in parts."""
    import datasets

    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["b", "a"]),
        "text": datasets.Value("string"),
    }
    for split in ("train", "test"):
        for part in range(2):
            images = [{"bytes": image_bytes(tmp_path, 2 * part + row), "path": "x.png"} for row in range(2)]
            values = {"image": images, "label": [0, 1], "text": [f"{part}", "t"]}
            table = datasets.Dataset.from_dict(values, features=datasets.Features(kinds))
            folder.mkdir(parents=True, exist_ok=True)
            table.to_parquet(folder / f"{split}-0000{part}-of-00002.parquet")
    return folder


@pytest.mark.parametrize("below", ["", "data"])
def test_parquet_of_hugging_face_is_read_with_its_images_in_parts(tmp_path, below):
    hugging_face(tmp_path, tmp_path / "set" / below)
    train, test = load_data(tmp_path / "set")
    assert train.class_names == ("a", "b")
    assert train.labels.tolist() == [1, 0, 1, 0]
    assert (train.texts, len(test)) == (("0", "t", "1", "t"), 4)
    np.testing.assert_array_equal(train.images([2], 16)[0], crop(2, 16))
    assert train.has_images
    assert len({*train.ids}) == 4
    assert train.subset([1]).key() != train.subset([3]).key()


def test_a_broken_image_inside_a_table_is_named_by_its_row_and_skipped(tmp_path):
    good = {"bytes": image_bytes(tmp_path), "path": None}
    cells = [good, None, {"bytes": b"", "path": None}, {"bytes": b"no image", "path": None}, good]
    frame = pd.DataFrame({"image": cells, "text": ["t"] * 5, "label": [1.0, 1.0, 2.0, 1.0, 1.0]})
    frame.to_parquet(tmp_path / "train.parquet")
    frame.iloc[[0]].to_parquet(tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"train.parquet row 1: expected an image, got nothing.* \(and 1 more"):
        load_data(tmp_path)
    with pytest.warns(DataWarning) as told:
        train, _ = load_data(tmp_path, skip_bad=True)
    assert (len(train), train.class_names) == (2, ("1",))
    lines = [str(line.message) for line in told]
    assert any(
        "3 broken examples are skipped" in line and "train/000000003: expected an image" in line for line in lines
    )
    assert train.images([0, 1], 16).shape == (2, 16, 16, 3)


def test_numbers_categories_and_empty_cells_of_parquet_mean_what_they_mean_in_csv(tmp_path):
    frame = pd.DataFrame({"text": ["a", None, "c"], "label": pd.Categorical(["x", "y", "x"])})
    frame.to_parquet(tmp_path / "train.parquet")
    frame.iloc[[0]].assign(text=[7]).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"train.parquet row 1: expected a text, got nothing"):
        load_data(tmp_path, TEXTS)
    with pytest.warns(DataWarning, match="1 broken"):
        train, test = load_data(tmp_path, TEXTS, skip_bad=True)
    assert (train.class_names, train.texts, test.texts) == (("x",), ("a", "c"), ("7",))


def test_a_parquet_file_that_is_none_and_one_without_columns_are_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"train.parquet: expected a Parquet file, got .*; write it again"):
        load_data(tmp_path)
    for split in ("train", "test"):
        pd.DataFrame({"a": [1]}).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"expected the column 'file_name', got \['a'\]; rename yours"):
        load_data(tmp_path)
    with pytest.raises(DataError, match=r"lacks the columns \['text', 'label'\], it has \['a'\]"):
        load_data(tmp_path, TEXTS)
