"""The cost model is true of a small memory: requests to the one, bytes within a fifth."""

import pytest

from bench.costs import model
from bench.costs.check import BATCH, check, shape_of
from bench.costs.model import Memory, Place


@pytest.fixture(scope="module")
def rows():
    return [row for row in check(3, latency_s=0.0)[0] if not row.what.startswith("RAM")]


def test_requests_are_as_the_model_says(rows):
    told = {row.what: row.model.requests for row in rows}
    found = {row.what: row.requests for row in rows}
    assert told.pop("read") == pytest.approx(found.pop("read"), abs=0.1), "a mean over batches"
    assert told == found
    assert len(told) == 6


def test_bytes_are_as_the_model_says_within_a_fifth(rows):
    for row in rows:
        assert row.model_bytes == pytest.approx(row.num_bytes, rel=0.2, abs=100), row.what


def test_a_cached_batch_asks_for_nothing_and_a_cold_one_for_a_segment_an_exemplar():
    memory = shape_of(10**7)
    assert model.read(memory, BATCH, cached=1.0).requests == 0
    assert model.read(memory, BATCH).gets == pytest.approx(BATCH + 1, rel=0.01)


def test_seconds_are_waits_and_what_the_link_carries():
    memory = Memory(exemplars=64 * 256, payload_bytes=1000, rows=256)
    cost = model.open_reader(memory)
    assert cost.rounds == 5 + 2, "64 chunks, 32 at once"
    slow, thin = Place(latency_s=0.05), Place(latency_s=0.0, link_bytes_s=1e6)
    assert model.seconds(cost, slow) == pytest.approx(7 * 0.05)
    assert model.seconds(cost, thin) == pytest.approx(cost.get_bytes / 1e6)
