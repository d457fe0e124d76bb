"""RAM: adding, evicting, checking and repairing take a few segments and a batch, whatever is stored."""

import tracemalloc

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.memory.maintenance import check, repair
from exmem.store.sizes import target_for

WIDTH, BATCH, BUDGET = 25_000, 32, 64_000_000
SCHEMA = Schema({"features": TokenSpec(positions=1, shape=(WIDTH,), dtype="float16", codec="raw")})
BATCH_BYTES = BATCH * 2 * WIDTH
ALLOWED = 4 * target_for(BUDGET) + 2 * BATCH_BYTES + 2_000_000  # a batch and its payloads; what the interpreter needs


def batch(start):
    values = np.random.default_rng(start).integers(0, 2**16, (BATCH, 1, WIDTH), np.uint16).view(np.float16)
    values[np.isnan(values)] = 0
    return [
        Exemplar({"features": TokenSet.dense(value)}, label=start % 5, priority=-start - row)
        for row, value in enumerate(values)
    ]


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("memory") / "m"


@pytest.mark.slow
def test_adding_beyond_the_budget_takes_no_more_than_a_few_segments_and_a_batch(folder):
    with ExemplarMemory.create(folder, schema=SCHEMA, max_bytes=BUDGET, durable=False, threads=1) as memory:

        def work():
            for start in range(0, 1600, BATCH):
                memory.add(batch(start))

        assert peak_of(work) < ALLOWED
        assert memory.used_bytes > 0.9 * BUDGET
        assert len(memory) < 1600, "nothing was evicted"


@pytest.mark.slow
def test_evicting_checking_and_repairing_do_too(folder):
    with ExemplarMemory.open(folder, mode="r+", durable=False, threads=1) as memory:
        assert peak_of(lambda: memory.evict(memory.slots[::3])) < ALLOWED
    assert peak_of(lambda: check(folder, threads=1)) < ALLOWED
    shard = sorted(folder.glob("e*/features/c.*"))[2]
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(bytes(data))
    assert peak_of(lambda: repair(folder, threads=1)) < ALLOWED
    assert check(folder) == []
