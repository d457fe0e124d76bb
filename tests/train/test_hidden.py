"""Hidden tokens that all runs share: computed once, kept within a bound."""

import os

import pytest
import torch
from safetensors import SafetensorError

from exmem.errors import DataError, SchemaError
from exmem.train.cache import cached, keep


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("exmem.train.cache.cache_dir", lambda: tmp_path)
    return tmp_path / "hidden"


def compute(number=0, size=1000):
    return {"values": torch.full((size,), number, dtype=torch.uint8)}


def never():
    raise AssertionError("nothing is computed")


def kept_or_computed(name, compute):
    tensors = cached(name)
    return keep(name, compute()) if tensors is None else tensors


def names(cache):
    return sorted(file.name.partition(".")[0] for file in cache.iterdir())


def test_what_was_computed_once_is_read_by_the_next(cache):
    assert kept_or_computed("one", lambda: compute(3))["values"][0] == 3
    again = kept_or_computed("one", never)
    assert again["values"].tolist() == [3] * 1000
    assert names(cache) == ["one"]


def test_what_was_not_used_for_longest_goes_first_and_the_bound_holds(cache, monkeypatch):
    monkeypatch.setenv("EXMEM_HIDDEN_BYTES", "3500")  # three of them with their headers
    for number, name in enumerate(("first", "second", "third")):
        kept_or_computed(name, lambda number=number: compute(number))
        os.utime(cache / f"{name}.safetensors", (number, number))
    kept_or_computed("first", never)  # used again
    kept_or_computed("fourth", compute)
    assert names(cache) == ["first", "fourth", "third"]
    kept_or_computed("large", lambda: compute(size=3000))
    assert names(cache) == ["large"]
    assert sum(file.stat().st_size for file in cache.iterdir()) <= 3500


def test_what_is_larger_than_the_bound_is_not_kept_and_displaces_nothing(cache, monkeypatch):
    monkeypatch.setenv("EXMEM_HIDDEN_BYTES", "2kB")
    kept_or_computed("small", compute)
    assert len(kept_or_computed("large", lambda: compute(size=2000))["values"]) == 2000, "its header is too much"
    assert names(cache) == ["small"]


def test_a_wrong_bound_is_told_before_anything_is_computed(cache, monkeypatch):
    monkeypatch.setenv("EXMEM_HIDDEN_BYTES", "much")
    with pytest.raises(SchemaError, match=r"EXMEM_HIDDEN_BYTES: .*'much'"):
        kept_or_computed("one", never)


def test_a_file_that_was_cut_off_is_computed_again(cache):
    kept_or_computed("one", lambda: compute(3))
    file = cache / "one.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    assert kept_or_computed("one", lambda: compute(4))["values"][0] == 4
    assert kept_or_computed("one", never)["values"][0] == 4


def test_nothing_is_left_of_a_write_that_failed_or_was_killed(cache, monkeypatch):
    cache.mkdir()
    killed = cache / "one.safetensors.1.tmp"
    killed.write_bytes(b"x" * 100)
    os.utime(killed, (0, 0))

    def full(tensors, file):
        file.write_bytes(b"x")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("exmem.train.cache.save_file", full)
        with pytest.raises(DataError, match=r"No space left .*; make room there, or keep none"):
            kept_or_computed("one", compute)
    assert names(cache) == ["one"], "that of another process, perhaps still at work"
    kept_or_computed("two", compute)
    assert [file.name for file in cache.iterdir()] == ["two.safetensors"]
