"""Exemplars are encoded once: measured by `encode` or `plan_add`, and stored as they are."""

import dataclasses

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, Schema, TokenBatch, TokenSet, TokenSpec
from exmem.codecs.patch_jpeg import PatchJpeg
from exmem.errors import InvalidExemplarError
from tests.exemplars import assert_same, exemplar, schema


@pytest.fixture
def encodings(monkeypatch):
    """How often a payload was encoded, in a list of one number."""
    counts, encode = [0], PatchJpeg.encode

    def counted(codec, values):
        counts[0] += 1
        return encode(codec, values)

    monkeypatch.setattr(PatchJpeg, "encode", counted)
    return counts


def memory_at(place, max_bytes="1MB", **options):
    return ExemplarMemory.create(place, schema=schema(), max_bytes=max_bytes, durable=False, **options)


def given(count=12, first=0):
    return [exemplar(seed, label=seed % 3, priority=-seed) for seed in range(first, first + count)]


def assert_equal(memory, other):
    np.testing.assert_array_equal(memory.slots, other.slots)
    for one, expected in zip(memory.read(memory.slots), other.read(other.slots), strict=True):
        assert_same(one, expected)


def test_encoding_planning_and_adding_encode_each_payload_once(tmp_path, encodings):
    with memory_at(tmp_path / "m") as memory:
        encoded = memory.encode(given())
        assert encodings == [12]
        plan = memory.plan_add(encoded)
        report = memory.add(plan.encoded)
        memory.commit()
        assert encodings == [12]
        assert report.slots.tolist() == [*range(12)]
        memory.add(memory.plan_add(given(first=12)).encoded)
        assert encodings == [24]
        assert len(memory) == 24


def test_what_was_encoded_is_stored_as_the_exemplars_would_be(tmp_path):
    with memory_at(tmp_path / "encoded") as memory, memory_at(tmp_path / "plain") as other:
        memory.add(memory.encode(given()))
        other.add(given())
        memory.add(memory.plan_add(TokenBatch.of(given(first=12))).encoded)
        other.add(given(first=12))
        for one in (memory, other):
            one.commit()
        assert_equal(memory, other)
        assert memory.used_bytes == other.used_bytes


def test_a_full_memory_evicts_for_encoded_ones_what_it_planned_to(tmp_path):
    with memory_at(tmp_path / "encoded", "60kB") as memory, memory_at(tmp_path / "plain", "60kB") as other:
        for first in range(0, 120, 12):
            plan = memory.plan_add(memory.encode(given(first=first)))
            report, expected = memory.add(plan.encoded), other.add(given(first=first))
            assert report.slots.tolist() == expected.slots.tolist()
            assert report.evicted.tolist() == expected.evicted.tolist()
            assert np.flatnonzero(report.slots >= 0).tolist() == plan.admitted.tolist()
            assert memory.used_bytes <= 60_000
        assert len(memory) < 120
        assert_equal(memory, other)


def test_sizes_are_those_the_memory_accounts_them_with(tmp_path):
    with memory_at(tmp_path / "m") as memory:
        encoded = memory.encode(given())
        assert len(encoded) == 12
        memory.add(encoded)
        np.testing.assert_array_equal(encoded.sizes, memory.sizes)


def test_some_of_them_and_others_behind_them_are_added_in_that_order(tmp_path):
    with memory_at(tmp_path / "m") as memory:
        encoded = memory.encode(given())
        chosen = encoded.take([7, 2]).joined(memory.encode(given(1, first=20)))
        memory.add(chosen)
        memory.commit()
        for slot, seed in enumerate([7, 2, 20]):
            (stored,) = memory.read([slot])
            assert stored.extras["task"] == seed
        assert len(memory.add(encoded.take([])).slots) == 0


def test_other_priorities_need_no_encoding(tmp_path, encodings):
    ranks = [3.0, -1.0, np.inf, *range(9)]
    with memory_at(tmp_path / "m", "12kB") as memory, memory_at(tmp_path / "plain", "12kB") as other:
        encoded = memory.encode(given())
        assert encodings == [12]
        report = memory.add(encoded.ranked(ranks))
        assert encodings == [12]
        expected = other.add(
            [dataclasses.replace(one, priority=rank) for one, rank in zip(given(), ranks, strict=True)]
        )
        assert 0 < len(memory) < 12
        assert report.slots.tolist() == expected.slots.tolist()
        for one in (memory, other):
            one.commit()
        assert_equal(memory, other)
        np.testing.assert_array_equal(memory.priorities, other.priorities)
        assert encoded.rows.priorities.tolist() == [-float(seed) for seed in range(12)]  # as they were


@pytest.mark.parametrize("ranks", [[1.0] * 11, [[1.0] * 12], [*[1.0] * 11, np.nan], ["a"] * 12])
def test_priorities_that_are_not_as_many_numbers_are_refused(tmp_path, ranks):
    with memory_at(tmp_path / "m") as memory, pytest.raises(InvalidExemplarError, match="priorities"):
        memory.encode(given()).ranked(ranks)


def test_a_reader_encodes_too_and_changes_nothing(tmp_path):
    memory_at(tmp_path / "m").close()
    with ExemplarMemory.open(tmp_path / "m") as reader:
        encoded = reader.encode(given())
        assert len(reader) == 0
    with ExemplarMemory.open(tmp_path / "m", mode="r+") as memory:
        assert memory.add(encoded).slots.tolist() == [*range(12)], "encoded before it was opened again"


OTHERS = {
    "codec": schema("raw"),
    "positions": Schema({**schema().modalities, "text": TokenSpec(positions=13, dtype="int32")}, schema().extras),
    "extras": Schema(schema().modalities),
    "recipe": Schema(schema().modalities, schema().extras, {"recipe": {}, "frame": None}),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_was_encoded_for_another_schema_is_refused(tmp_path, other):
    own = [
        Exemplar(one.tokens, label=one.label, extras={name: one.extras[name] for name in other.extras})
        for one in given(2)
    ]
    with (
        ExemplarMemory.create(tmp_path / "other", schema=other, max_bytes="1MB") as elsewhere,
        memory_at(tmp_path / "m") as memory,
    ):
        encoded = elsewhere.encode(own)
        for refused in (memory.plan_add, memory.add, memory.encode, memory.encode(given(1)).joined):
            with pytest.raises(InvalidExemplarError, match=r"another schema|different schemas"):
                refused(encoded)
        assert len(memory) == 0
        assert elsewhere.add(encoded).slots.tolist() == [0, 1]


def test_what_does_not_fit_is_told_when_it_is_encoded(tmp_path):
    with memory_at(tmp_path / "m") as memory:
        wrong = Exemplar({"image": TokenSet([0], np.zeros((1, 4, 4, 3), np.uint8))}, label=0)
        with pytest.raises(InvalidExemplarError, match="exemplar 1: expected the modalities"):
            memory.encode([*given(1), wrong])
