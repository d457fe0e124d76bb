"""Pickles of strangers run no code."""

import contextlib
import os
import pickle
import pickletools

import numpy as np
import pytest

from exmem.errors import DataError
from exmem.train.data.layouts.pickles import read_pickle

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


class Runs:
    def __init__(self, what, *given):
        self.what, self.given = what, given

    def __reduce__(self):
        return self.what, self.given


def written(tmp_path, value, protocol=2):
    path = tmp_path / "held"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_data_and_arrays_of_bytes_are_read(tmp_path, protocol, order):
    value = {"data": np.array(PIXELS, order=order), "names": ["ä", "b"], "labels": [1, 2], "more": {"x": (1.5, None)}}
    read = read_pickle(written(tmp_path, value, protocol))
    np.testing.assert_array_equal(read.pop("data"), PIXELS)
    assert read == {"names": ["ä", "b"], "labels": [1, 2], "more": {"x": (1.5, None)}}


def test_what_python_2_wrote_is_read(tmp_path):
    """The form of the files of CIFAR-100: strings of bytes, and NumPy by its name of then."""
    path = written(
        tmp_path,
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85q\x05"
        b"U\x01bq\x06\x87q\x07Rq\x08(K\x01K\x01K\x03\x86q\tcnumpy\ndtype\nq\nU\x02u1q\x0bK\x00K\x01\x87q\x0cRq\r(K\x03"
        b"U\x01|q\x0eNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0fb\x89U\x03\x00\x80\xffq\x10tq\x11bU\x06labels"
        b"q\x12]q\x13K\x07au.",
    )
    read = read_pickle(path)
    assert read["data"].tolist() == [[0, 128, 255]]
    assert read["labels"] == [7]


@pytest.mark.parametrize(
    "attack",
    [
        Runs(os.system, "touch {place}"),
        Runs(eval, "open('{place}', 'w')"),
        Runs(getattr, "text", "upper"),
        Runs(np.load, "{place}"),
        Runs(bytearray, 10**15),
        {"data": np.array([Runs(os.system, "touch {place}")], dtype=object)},
    ],
    ids=["system", "eval", "getattr", "numpy", "memory", "objects"],
)
def test_a_pickle_that_runs_something_is_refused_and_runs_nothing(tmp_path, attack):
    place = tmp_path / "hacked"
    if isinstance(attack, Runs):
        attack.given = tuple(g.replace("{place}", str(place)) if isinstance(g, str) else g for g in attack.given)
    path = written(tmp_path, attack)
    with pytest.raises(DataError, match=r"held: expected a pickle of plain data, got another \(.*\); take it from"):
        read_pickle(path)
    assert not place.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02c__builtin__\neval\nU\x011\x85R.",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"\x80\x02cnumpy\nndarray\nK\x01\x85R.",  # an array that is called and not filled
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of exabytes
        b"\x80\x02Pname\n.",
        b"\x80\x02\x82\x01.",
        b"",
        b"no pickle",
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, content):
    with pytest.raises(DataError, match="expected a pickle of plain data"):
        read_pickle(written(tmp_path, content))


@pytest.mark.parametrize("kind", [np.int64, np.float32, object, "S3"])
def test_arrays_of_other_kinds_are_refused(tmp_path, kind):
    with pytest.raises(DataError, match=r"expected an array of bytes"):
        read_pickle(written(tmp_path, {"data": np.zeros(3, kind)}))


def test_an_array_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path):
    content = pickle.dumps(PIXELS, protocol=2)
    assert any(name.name == "BININT1" and value == 3 for name, value, _ in pickletools.genops(content))
    with pytest.raises(DataError, match=r"expected 36 bytes, got 12"):
        read_pickle(written(tmp_path, content.replace(b"K\x03K\x04\x86", b"K\x09K\x04\x86")))


@pytest.mark.parametrize("at", range(0, 120, 7))
def test_a_damaged_pickle_is_an_error_of_ours_or_reads_as_data(tmp_path, at):
    content = bytearray(pickle.dumps({"data": PIXELS, "names": ["a"]}, protocol=2))
    content[at % len(content)] ^= 0x55
    with contextlib.suppress(DataError):
        read_pickle(written(tmp_path, bytes(content)))
