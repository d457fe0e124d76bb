"""Data sets of Hugging Face `datasets`, on disk and by name."""

import datasets
import numpy as np
import pytest

from exmem.errors import DataError, DataWarning
from exmem.train.data import Columns, load_data
from tests.exemplars import crop
from tests.train.data.writing import image_bytes


def one(tmp_path, *, columns=("image", "text", "label"), classes=True, rows=3):
    values = {
        "image": [{"bytes": image_bytes(tmp_path, row), "path": None} for row in range(rows)],
        "text": [f"text {row}" for row in range(rows)],
        "label": [row % 2 for row in range(rows)],
    }
    kinds = {
        "image": datasets.Image(),
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["b", "a"]) if classes else datasets.Value("int64"),
    }
    held = datasets.Dataset.from_dict(values, features=datasets.Features(kinds))
    return held.rename_columns(dict(zip(("image", "text", "label"), columns, strict=True)))


@pytest.mark.parametrize("name", ["test", "validation"])
@pytest.mark.filterwarnings("ignore:.*is taken for it")
def test_what_save_to_disk_wrote_is_read(tmp_path, name):
    datasets.DatasetDict({"train": one(tmp_path), name: one(tmp_path, rows=2)}).save_to_disk(tmp_path / "set")
    train, test = load_data(tmp_path / "set")
    assert (train.class_names, train.labels.tolist(), len(test)) == (("a", "b"), [1, 0, 1], 2)
    np.testing.assert_array_equal(train.images([2], 16)[0], crop(2, 16))
    assert train.ids[0] == "train/000000000"


def test_rows_that_were_chosen_and_shuffled_before_are_those_that_are_read(tmp_path):
    chosen = one(tmp_path).select([2, 0])
    datasets.DatasetDict({"train": chosen, "test": chosen}).save_to_disk(tmp_path / "set")
    train, _ = load_data(tmp_path / "set")
    assert train.texts == ("text 2", "text 0")
    np.testing.assert_array_equal(train.images([0], 16)[0], crop(2, 16))


def test_other_names_of_columns_and_numbers_as_classes_are_taken(tmp_path):
    held = one(tmp_path, columns=("img", "caption", "fine_label"), classes=False)
    datasets.DatasetDict({"train": held, "test": held}).save_to_disk(tmp_path / "set")
    columns = Columns(image="img", text="caption", label="fine_label")
    train, _ = load_data(tmp_path / "set", columns)
    assert (train.class_names, train.texts[0]) == (("0", "1"), "text 0")
    with pytest.raises(DataError, match=r"expected the column 'file_name', got \['img', 'caption', 'fine_label'\]"):
        load_data(tmp_path / "set")


def test_one_set_is_divided_by_a_column_and_others_are_refused_with_what_is_there(tmp_path):
    held = one(tmp_path).add_column("split", ["train", "train", "test"])
    held.save_to_disk(tmp_path / "set")
    train, test = load_data(tmp_path / "set")
    assert (train.texts, test.texts) == (("text 0", "text 1"), ("text 2",))
    np.testing.assert_array_equal(test.images([0], 16)[0], crop(2, 16))
    datasets.DatasetDict({"train": one(tmp_path)}).save_to_disk(tmp_path / "other")
    with pytest.raises(
        DataError, match=r"expected the splits train and test \(or validation\), got \['train'\]; divide"
    ):
        load_data(tmp_path / "other")
    (tmp_path / "other" / "dataset_dict.json").write_text("{")
    with pytest.raises(DataError, match=r"other: cannot be read \(.*\); save it again with save_to_disk"):
        load_data(tmp_path / "other")
    with pytest.raises(DataError, match=r"expected a dataset_dict.json or state.json of save_to_disk, got none"):
        load_data(tmp_path, layout="saved")


def test_a_path_that_datasets_would_take_for_an_address_is_refused_with_the_remedy(tmp_path):
    datasets.DatasetDict({"train": one(tmp_path), "test": one(tmp_path)}).save_to_disk(tmp_path / "set")
    (tmp_path / "set").rename(tmp_path / "memory::x")
    with pytest.raises(DataError, match=r"expected a path without '::', .*; rename the folder"):
        load_data(tmp_path / "memory::x")


def test_a_name_on_the_hub_is_loaded_with_its_configuration(tmp_path, monkeypatch):
    asked = []

    def load(name, config):
        asked.append((name, config))
        return datasets.DatasetDict({"train": one(tmp_path), "validation": one(tmp_path, rows=2)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.warns(DataWarning, match="there is no split test, validation is taken for it"):
        assert len(load_data("hf:owner/name")[1]) == 2
    with pytest.warns(DataWarning, match="hf:owner/name:small"):
        load_data("hf:owner/name:small")
    assert asked == [("owner/name", None), ("owner/name", "small")]


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), ValueError("BuilderConfig 'x' not found")])
def test_a_hub_that_cannot_be_reached_is_one_line_with_the_remedy(monkeypatch, error):
    def load(name, config):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        DataError, match=r"^hf:a/b: cannot be loaded from the hub \((no route|Builder).* give its fold"
    ) as told:
        load_data("hf:a/b")
    assert "\n" not in str(told.value)


def test_a_folder_that_is_called_like_a_name_on_the_hub_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets.DatasetDict({"train": one(tmp_path), "test": one(tmp_path)}).save_to_disk("hf:a")
    assert len(load_data("hf:a")[0]) == 3
