"""Data sets as they are distributed: small replicas, right and damaged."""

import json
import shutil

import numpy as np
import pytest

from exmem.errors import DataError, DataWarning, SchemaError
from exmem.train.data import Columns, load_data
from exmem.train.data.layouts import LAYOUTS, read_data
from tests.train.data.writing import (
    captions,
    cifar_values,
    image,
    write_cifar100,
    write_csv,
    write_cub,
    write_food101,
    write_imagenet_r,
)

IMAGES = Columns(needs_text=False)
TEXTS = Columns(needs_image=False)


@pytest.mark.parametrize("layout", sorted({*LAYOUTS} - {"hub"}))
def test_every_layout_says_what_is_missing_and_found_where_there_is_nothing_of_it(tmp_path, layout):
    (tmp_path / "something.txt").write_text("x")
    with pytest.raises(DataError, match=r"expected .*something.txt|expected a dataset_dict") as refused:
        load_data(tmp_path, layout=layout)
    assert "\n" not in str(refused.value)


def test_an_unknown_layout_and_an_unknown_option_are_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(SchemaError, match=r"unknown layout 'food'; choose one of \['auto', 'cifar100', 'cub'"):
        load_data(tmp_path, layout="food")
    with pytest.raises(SchemaError, match=r"layout 'imagenet_r' has no option \['ratio'\]; it has \['seed', 'test_r"):
        load_data(tmp_path, layout="imagenet_r:ratio=0.1")
    for layout in ("imagenet_r:test_ratio=1.5", "imagenet_r:seed=-1", "cub:caption=-1"):
        with pytest.raises(SchemaError, match=r"expected|must be"):
            load_data(write_cub(tmp_path / layout), layout=layout)


def test_food101_has_titles_of_several_lines_and_classes(tmp_path):
    train, test = load_data(write_food101(tmp_path), layout="food101")
    assert train.class_names == ("apple_pie", "waffles")
    assert train.texts[0] == 'Apple_Pie recipe, "best"\nof 0'
    assert train.ids[0] == "train/apple_pie/apple_pie_0.jpg"
    assert (len(train), len(test)) == (4, 4)
    assert test.images([3], 16).shape == (1, 16, 16, 3)


def test_food101_may_lie_in_a_folder_of_its_name_and_name_its_columns(tmp_path):
    root = write_food101(tmp_path / "UPMC_Food101")
    path = root / "texts" / "train_titles.csv"
    path.write_text("image,title,class\n" + path.read_text())
    assert len(load_data(tmp_path, layout="food101")[0]) == 4


def test_food101_tells_what_is_missing_and_what_has_no_partner(tmp_path):
    root = write_food101(tmp_path)
    image(root / "images" / "train" / "waffles" / "waffles_99.jpg")
    with pytest.warns(DataWarning, match="train: 1 images have no row in train_titles.csv and are left out"):
        load_data(root, layout="food101")
    (root / "images" / "train" / "waffles" / "waffles_99.jpg").unlink()
    (root / "images" / "test" / "waffles" / "waffles_10.jpg").unlink()
    with pytest.raises(DataError, match=r"test/waffles/waffles_10.jpg \(test_titles.csv line \d\): no such image"):
        load_data(root, layout="food101")
    with pytest.warns(DataWarning, match="1 broken examples are skipped"):
        assert len(load_data(root, layout="food101", skip_bad=True)[1]) == 3
    shutil.rmtree(root / "images")
    assert len(load_data(root, TEXTS, layout="food101")[0]) == 4
    (root / "texts" / "test_titles.csv").unlink()
    missing = r"missing: images/train, images/test, texts/test_titles.csv; found: texts; unpack it as"
    with pytest.raises(DataError, match=missing):
        load_data(root, layout="food101")


def test_imagenet_r_is_divided_by_class_and_by_the_seed_alone(tmp_path):
    root = write_imagenet_r(tmp_path / "imagenet-r")
    train, test = load_data(tmp_path, IMAGES, layout="imagenet_r")
    assert train.class_names == ("golden_retriever", "goldfish")
    assert np.bincount(train.labels).tolist() == [8, 8]
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert not {*train.ids} & {*test.ids}
    assert [one.ids for one in load_data(root, IMAGES, layout="imagenet_r")] == [train.ids, test.ids]
    other = load_data(root, IMAGES, layout="imagenet_r:seed=1,test_ratio=0.5")
    assert np.bincount(other[1].labels).tolist() == [5, 5]
    shutil.rmtree(root / "n01443537")  # another class changes nothing of the division
    left = load_data(root, IMAGES, layout="imagenet_r")[1].ids
    assert left == tuple(name for name in test.ids if name.startswith("n02099601"))
    told = read_data(root, IMAGES, "imagenet_r").notes
    assert any("it has no splits; 20% of each class are for the test, drawn by the seed 0" in line for line in told)


def test_imagenet_r_takes_the_division_of_pilot_and_numbers_for_names_that_lack(tmp_path):
    for split in ("train", "test"):
        write_imagenet_r(tmp_path, folder=split, count=2)
    (tmp_path / "README.txt").unlink()
    train, test = load_data(tmp_path, IMAGES, layout="imagenet_r")
    assert (train.class_names, len(test)) == (("n01443537", "n02099601"), 4)
    assert train.ids[0] == "train/n01443537/art_0.jpg"
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(DataError, match=r"missing: test/n\.\.\.; found: train"):
        load_data(tmp_path, IMAGES, layout="imagenet_r")


def test_imagenet_r_has_no_texts_and_a_class_of_one_image_is_for_training(tmp_path):
    root = write_imagenet_r(tmp_path)
    with pytest.raises(DataError, match=r"expected texts, the layout imagenet_r has none; use data.modalities image"):
        load_data(root, layout="imagenet_r")
    image(root / "n09999999" / "x.jpg")
    train, test = load_data(root, IMAGES, layout="imagenet_r")
    assert "n09999999" in train.class_names
    assert not any(name.startswith("n09999999") for name in test.ids)


@pytest.mark.parametrize("folder", ["", "train"])
def test_mm_imagenet_r_is_imagenet_r_with_captions(tmp_path, folder):
    root = write_imagenet_r(tmp_path, folder=folder)
    if folder:
        write_imagenet_r(tmp_path, folder="test", count=1)
    captions(root, enumerate(sorted(root.rglob("*.jpg"))))
    train, test = load_data(root, layout="mm_imagenet_r")
    plain = load_data(root, IMAGES, layout="imagenet_r")
    assert (train.ids, test.ids) == tuple(one.ids for one in plain)
    assert all(text.startswith("a drawing") for text in (*train.texts, *test.texts))


def test_mm_imagenet_r_tells_captions_that_lack_are_wrong_or_belong_to_nothing(tmp_path):
    root = write_imagenet_r(tmp_path)
    with pytest.raises(DataError, match=r"missing: metadata.jsonl; found: .*README.txt.*; write a line with file_name"):
        load_data(root, layout="mm_imagenet_r")
    captions(root, enumerate(sorted(root.rglob("*.jpg"))[1:]))
    with pytest.raises(DataError, match=r"n01443537/art_0.jpg: no caption in metadata.jsonl; write one"):
        load_data(root, layout="mm_imagenet_r")
    with (root / "metadata.jsonl").open("a") as file:
        for row in ({"file_name": "n01443537/art_0.jpg", "text": ""}, {"file_name": "n0/no.jpg", "text": "x"}):
            file.write(json.dumps(row) + "\n")
    with pytest.warns(DataWarning, match="1 rows of metadata.jsonl name no image of the data and are left out"):
        train, test = load_data(root, layout="mm_imagenet_r")
    assert sorted((*train.texts, *test.texts))[0] == ""
    with (root / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "n01443537/art_1.jpg"}\n')
    with pytest.raises(DataError, match=r"metadata.jsonl line 22: expected file_name and text, got {'file_name'"):
        load_data(root, layout="mm_imagenet_r")


@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar100_is_read_to_the_pixel_in_either_form(tmp_path, form):
    train, test = load_data(write_cifar100(tmp_path, form), IMAGES, layout="cifar100")
    assert train.class_names == ("apple", "bee", "cloud")
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    pixels = cifar_values()["train"][0].reshape(6, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(train.images(range(6), 32), pixels)


def test_both_forms_of_cifar100_are_the_same_data(tmp_path):
    keys = {
        tuple(one.key() for one in load_data(write_cifar100(tmp_path / form, form), IMAGES, layout="cifar100"))
        for form in ("python", "binary")
    }
    assert len(keys) == 1


def test_cifar100_tells_what_is_missing_cut_off_or_not_wanted(tmp_path):
    root = write_cifar100(tmp_path, "binary")
    with pytest.raises(DataError, match=r"expected texts, the layout cifar100 has none; use data.modalities image"):
        load_data(root, layout="cifar100")
    folder = root / "cifar-100-binary"
    content = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"train.bin: expected records of 3,074 bytes, got 18,443 bytes; unpack it"):
        load_data(root, IMAGES, layout="cifar100")
    (folder / "train.bin").write_bytes(content[:1] + b"\x63" + content[2:])
    with pytest.raises(DataError, match=r"expected classes .* 2, got 99; unpack it again"):
        load_data(root, IMAGES, layout="cifar100")
    (folder / "train.bin").unlink()
    with pytest.raises(DataError, match=r"missing: train.bin; found: fine_label_names.txt, test.bin; unpack it"):
        load_data(root, IMAGES, layout="cifar100")
    shutil.rmtree(folder)
    root = write_cifar100(tmp_path)
    (root / "cifar-100-python" / "meta").unlink()
    with pytest.raises(DataError, match=r"missing: meta; found: test, train; unpack it as it is distributed"):
        load_data(root, IMAGES, layout="cifar100")


def test_cub_takes_its_lists_and_one_caption(tmp_path):
    train, test = load_data(write_cub(tmp_path), layout="cub")
    assert train.class_names == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert (np.bincount(train.labels).tolist(), np.bincount(test.labels).tolist()) == ([3, 3], [1, 1])
    assert (train.texts[0], test.texts) == ("bird 1 is black", ("bird 4 is black", "bird 8 is black"))
    assert load_data(tmp_path / "CUB_200_2011", layout="cub:caption=1")[0].texts[0] == "bird 1 has a beak"
    assert load_data(tmp_path, layout="cub:caption=2")[0].texts[0] == "bird 1 is black"
    assert train.ids[0] == "001.Black_footed_Albatross/Bird_0001_0.jpg"


def test_cub_needs_no_images_where_texts_alone_are_learnt(tmp_path):
    shutil.rmtree(write_cub(tmp_path) / "CUB_200_2011" / "images")
    train, _ = load_data(tmp_path, TEXTS, layout="cub")
    assert (len(train), train.has_images, train.texts[0]) == (6, False, "bird 1 is black")


def test_cub_without_captions_is_for_images_alone(tmp_path):
    root = write_cub(tmp_path, texts=False)
    with pytest.raises(DataError, match=r"the layout cub has none; put text_c10/ of Reed et al. 2016 into .*CUB_"):
        load_data(root, layout="cub")
    train, _ = load_data(root, IMAGES, layout="cub")
    assert (len(train), set(train.texts)) == (6, {""})


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "classes.txt",
            ("2 002.Laysan_Albatross\n", ""),
            "no line for the image 5 in image_class_labels.txt or",
        ),
        ("train_test_split.txt", ("3 1\n", ""), "no line for the image 3 in train_test_split.txt; add it"),
        ("train_test_split.txt", ("3 1\n", "3 2\n"), "no line for the image 3 in train_test_split.txt; add it"),
        ("images.txt", ("Bird_0002_1", "Bird_0002_9"), "Bird_0002_9.jpg: no such image; add it"),
        ("images.txt", ("1 001", "1 ../001"), "expected the name of a file in"),
        (
            "images.txt",
            ("2 001", "1 001"),
            r"images.txt: expected a number, once, and what it has in line 2, got '1",
        ),
    ],
)
def test_cub_tells_a_list_that_does_not_fit(tmp_path, file, change, message):
    path = write_cub(tmp_path) / "CUB_200_2011" / file
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DataError, match=message):
        load_data(tmp_path, layout="cub")


def test_cub_tells_a_caption_and_lists_that_lack(tmp_path):
    root = write_cub(tmp_path)
    path = next((root / "text_c10").rglob("*0001*.txt"))
    path.write_text("\n")
    with pytest.raises(DataError, match=r"Bird_0001_0.jpg: expected captions in .*Bird_0001_0.txt, got none; add it"):
        load_data(root, layout="cub")
    for name in ("images.txt", "classes.txt"):
        (root / "CUB_200_2011" / name).unlink()
    with pytest.raises(DataError, match=r"missing: images.txt, classes.txt; found: image_class_labels.txt, images"):
        load_data(root, layout="cub")


def test_a_layout_of_ones_own_is_taken_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(LAYOUTS, "_parts", dict(LAYOUTS._parts))

    def folders(place, columns, *, below="x"):
        return read_data(place.path / below, columns)

    LAYOUTS.add("folders", folders)
    for split in ("train", "test"):
        image(tmp_path / "y" / split / "0.png")
        write_csv(tmp_path / "y" / split / "metadata.csv", [("0.png", "t", "a")])
    assert load_data(tmp_path, layout="folders:below=y")[0].class_names == ("a",)


@pytest.mark.parametrize("layout", ["imagenet_r:test_ratio=x", "imagenet_r:seed=1.5", "cub:caption=first"])
def test_an_option_of_another_kind_is_told(tmp_path, layout):
    with pytest.raises(SchemaError, match="layout"):
        load_data(write_cub(tmp_path), layout=layout)


def test_a_list_of_images_that_was_cut_off_is_told(tmp_path):
    root = write_cub(tmp_path)
    file = root / "CUB_200_2011" / "images.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(DataError, match=r"expected the images that image_class_labels.txt has, lacks \['7', '8'\]"):
        load_data(root, layout="cub")


@pytest.mark.parametrize("name", ["hf:", "hf:../..", "hf:/tmp", "hf:a/b/c", "hf:own"])
def test_a_name_that_is_none_of_the_hub_is_told_without_asking_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    monkeypatch.setattr("datasets.load_dataset", lambda *_: pytest.fail("it was asked for"))
    with pytest.raises(DataError, match="expected hf:OWNER/NAME"):
        load_data(name)
