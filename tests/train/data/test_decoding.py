"""Images are decoded once, in threads, and held within a bound."""

import os
import threading

import numpy as np
import pytest

from exmem.errors import DataError, DataWarning, SchemaError
from exmem.train.batches import ahead
from exmem.train.data import ImageText, load_data
from exmem.train.data import examples as holder
from exmem.train.data.decoding import Decoded, decoded
from tests.exemplars import crop
from tests.train.data.writing import image, write_tables

SIDE = 16
EACH = SIDE * SIDE * 3


@pytest.fixture(autouse=True)
def nothing_held():
    decoded.clear()
    yield
    decoded.clear()


@pytest.fixture
def count(monkeypatch):
    """Paths that were decoded."""
    paths, decode = [], holder.decode_image

    def counted(path, *args, **options):
        paths.append(str(path))
        return decode(path, *args, **options)

    monkeypatch.setattr(holder, "decode_image", counted)
    return paths


@pytest.fixture
def data(tmp_path):
    paths = [image(tmp_path / f"{row}.png", row, SIDE) for row in range(8)]
    return ImageText(paths, [""] * 8, [0] * 8, ["a"])


def test_an_image_is_decoded_once_for_all_copies_and_parts(data, count):
    first = data.images(range(8), SIDE)
    again = data.subset([7, 0]).images([0, 1], SIDE)
    other = ImageText(data.paths, data.texts, data.labels, data.class_names).images([3], SIDE)
    assert len(count) == 8
    np.testing.assert_array_equal(first, np.stack([crop(row, SIDE) for row in range(8)]))
    np.testing.assert_array_equal(again, first[[7, 0]])
    np.testing.assert_array_equal(other, first[[3]])
    data.images([0], 8)
    assert len(count) == 9


def test_images_inside_a_table_are_held_by_their_rows(data, count):
    import datasets

    inside = [{"bytes": path.read_bytes(), "path": None} for path in data.paths]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a"]))
    whole = ImageText.from_dataset(datasets.Dataset.from_dict({"image": inside, "label": [0] * 8}, features=features))
    other = ImageText.from_dataset(
        datasets.Dataset.from_dict({"image": inside[::-1], "label": [0] * 8}, features=features)
    )
    whole.images(range(8), SIDE)
    part = whole.subset([5, 6]).subset([1])
    np.testing.assert_array_equal(part.images([0], SIDE)[0], crop(6, SIDE))
    assert len(count) == 8
    np.testing.assert_array_equal(other.images([0], SIDE)[0], crop(7, SIDE))
    assert len(count) == 9


def test_what_is_given_back_may_be_written_to(data):
    data.images(range(8), SIDE)[:] = 0
    np.testing.assert_array_equal(data.images([2], SIDE)[0], crop(2, SIDE))


def test_a_file_that_has_changed_is_decoded_again(data):
    data.images([0], SIDE)
    image(data.paths[0], 5, SIDE)
    os.utime(data.paths[0], (1, 1))
    np.testing.assert_array_equal(data.images([0], SIDE)[0], crop(5, SIDE))


@pytest.mark.parametrize(("most", "expected"), [(3 * EACH, [8, 8 + 5]), (0, [8, 16]), (8 * EACH, [8, 8])])
def test_what_was_used_last_is_held_and_the_rest_is_decoded_again(data, count, monkeypatch, most, expected):
    monkeypatch.setenv("EXMEM_IMAGE_BYTES", str(most))
    for row in range(8):
        data.images([row], SIDE)
    assert len(count) == expected[0]
    for row in reversed(range(8)):
        np.testing.assert_array_equal(data.images([row], SIDE)[0], crop(row, SIDE))
        assert decoded.held_bytes <= most
    assert len(count) == expected[1]


def test_a_bound_that_cannot_be_read_is_told(data, monkeypatch):
    monkeypatch.setenv("EXMEM_IMAGE_BYTES", "much")
    with pytest.raises(SchemaError, match=r"EXMEM_IMAGE_BYTES: .*much"):
        data.images([0], SIDE)


def test_images_are_decoded_in_several_threads_and_the_first_broken_one_is_told(data, monkeypatch):
    names, decode = set(), holder.decode_image

    def named(*args, **options):
        names.add(threading.current_thread().name)
        return decode(*args, **options)

    monkeypatch.setattr(holder, "decode_image", named)
    data.images(range(8), SIDE)
    assert threading.main_thread().name not in names
    for row in (2, 6):
        data.paths[row].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png: expected an image"):
        data.images(range(8), SIDE)


def test_held_images_never_exceed_the_bound_whatever_is_put():
    held = Decoded()
    for turn in range(200):
        size = turn * 37 % 50 + 1
        held.put(turn % 20, np.zeros(size, np.uint8), 100)
        assert held.held_bytes <= 100
        assert held.get(turn % 20) is not None
    held.put("large", np.zeros(101, np.uint8), 100)
    assert held.get("large") is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_process_that_was_forked_holds_nothing_and_can_decode(data):
    data.images(range(8), SIDE)
    with decoded._lock:  # as if another thread had it
        child = os.fork()
        if not child:
            fine = decoded.held_bytes == 0 and (data.images(range(8), SIDE)[3] == crop(3, SIDE)).all()
            os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_made_ahead_comes_in_order_one_ahead_and_fails_where_it_would():
    made = []

    def things():
        for number in range(5):
            made.append(number)
            yield number
        raise ValueError("the end")

    coming, taken = ahead(things()), []
    for _ in range(5):
        taken.append(next(coming))
        assert len(made) <= len(taken) + 1
    assert taken == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="the end"):
        next(coming)
    assert list(ahead([])) == []
    assert next(iter(ahead(iter([None, 1])))) is None


def test_an_image_that_cannot_be_decoded_is_skipped_only_when_asked_and_counted(tmp_path):
    root = write_tables(tmp_path)
    whole = load_data(root)[0]
    for row in (0, 2):
        path = root / "images" / f"train{row}.png"
        path.write_bytes(path.read_bytes()[:60])
    told = []
    assert len(load_data(root)[0]) == 4  # found when it is decoded
    with pytest.raises(DataError, match="dog"):  # no example of its class is left
        load_data(root, skip_bad=True)
    (root / "images" / "train2.png").write_bytes((root / "images" / "train1.png").read_bytes())
    with pytest.warns(DataWarning, match=r"^1 broken examples are skipped: .*train0.png: expected an image, got .*tr"):
        train, test = load_data(root, skip_bad=True, advance=lambda done, total: told.append((done, total)))
    assert (len(train), len(test)) == (3, 4)
    assert told[-1] == (8, 8)
    assert train.ids == whole.ids[1:]
    assert train.key() != whole.key()


def test_many_broken_examples_are_counted_and_three_are_named(tmp_path):
    root = write_tables(tmp_path, count=8)
    for row in range(5):
        (root / "images" / f"train{row}.png").unlink()
    with pytest.warns(DataWarning, match=r"^5 broken examples are skipped: (.*train\d.png.*; ){3}2 more: `exmem data "):
        assert len(load_data(root, skip_bad=True)[0]) == 3


def test_a_split_of_which_nothing_is_whole_is_an_error_also_when_broken_ones_are_skipped(tmp_path):
    root = write_tables(tmp_path)
    for row in range(4):
        (root / "images" / f"test{row}.png").unlink()
    with pytest.raises(DataError, match=r"test.csv: expected at least one example that is whole, got 4 broken ones"):
        load_data(root, skip_bad=True)
