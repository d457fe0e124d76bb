"""Reading and adding against the bare codec and against Zarr's own indexing; each asserts what it read.

Run `make bench`. A ratio is measured in one process, the two sides in turn, and is reported, never asserted.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.codecs import get_codec
from tests.exemplars import folder_bytes, patches

GRID, PATCH, BATCH, COUNT = 12, 32, 64, 256


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """256 exemplars: 384 px crops of photographs, 32 px patches, 40 % kept, JPEG quality 75."""
    spec = TokenSpec(positions=GRID * GRID, shape=(PATCH, PATCH, 3), codec="patch_jpeg")
    rng = np.random.default_rng(0)
    given = []
    for seed in range(COUNT):
        keep = np.zeros(GRID * GRID, np.bool_)
        keep[rng.choice(GRID * GRID, 58, replace=False)] = True
        tokens = TokenSet.kept(patches(seed, grid=GRID, patch=PATCH), keep)
        given.append(Exemplar({"image": tokens}, label=seed % 10))
    folder = tmp_path_factory.mktemp("bench") / "memory"
    with ExemplarMemory.create(folder, schema=Schema({"image": spec}), max_bytes="64MB", threads=2) as memory:
        memory.add(given)
    codec = get_codec(spec.codec, shape=spec.shape, dtype=spec.dtype)
    payloads = [codec.encode(exemplar.tokens["image"].values) for exemplar in given]
    return folder, given, codec, payloads


def interleaved(first, second, rounds=7):
    """Median seconds of two functions run in turn."""
    times = [], []
    for _ in range(rounds):
        for kept, work in zip(times, (first, second), strict=True):
            start = time.perf_counter()
            work()
            kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def test_bytes_over_payload(benchmark, filled):
    folder, _, _, payloads = filled
    total = benchmark.pedantic(folder_bytes, (folder,), rounds=1)
    overhead = total / sum(map(len, payloads)) - 1
    benchmark.extra_info["overhead_percent"] = round(100 * overhead, 3)
    benchmark.extra_info["bytes_an_exemplar"] = round(total / COUNT)
    assert 0 < overhead < 0.05


def test_random_batches_against_the_bare_decoder(benchmark, filled):
    folder, _, codec, payloads = filled
    memory = ExemplarMemory.open(folder, threads=2)
    slots = memory.slots
    row_of = {slot: row for row, slot in enumerate(slots.tolist())}
    rng = np.random.default_rng(1)
    picks = rng.choice(slots, BATCH, replace=False)
    pool = ThreadPoolExecutor(2)
    out = np.zeros((BATCH, 58, PATCH, PATCH, 3), np.uint8)

    def bare():
        def decode(part):
            for at in part:
                codec.decode_into(payloads[row_of[int(picks[at])]], out[at])

        list(pool.map(decode, (range(0, BATCH, 2), range(1, BATCH, 2))))

    ours, theirs = interleaved(lambda: memory.read(picks), bare)
    np.testing.assert_array_equal(memory.read(picks).tokens["image"].values, out)
    assert out.any()
    benchmark.extra_info["of_bare_decoder"] = round(theirs / ours, 3)
    benchmark.extra_info["exemplars_a_second"] = round(BATCH / ours)
    benchmark(memory.read, picks)
    pool.shutdown()


def test_random_reads_against_zarr(benchmark, filled):
    folder, _, _, _ = filled
    memory, array = ExemplarMemory.open(folder, threads=2), zarr.open_group(folder, mode="r")["image/values"]
    picks = np.random.default_rng(2).choice(memory.slots, 16, replace=False)
    found = []

    def by_zarr():
        found[:] = [array[int(slot)] for slot in picks]

    ours, theirs = interleaved(lambda: memory.read(picks), by_zarr, rounds=3)
    batch = memory.read(picks).tokens["image"].values
    np.testing.assert_array_equal(np.stack(found)[:, :58], batch)
    benchmark.extra_info["times_zarr"] = round(theirs / ours, 1)
    benchmark.extra_info["zarr_exemplars_a_second"] = round(len(picks) / theirs)
    benchmark(memory.read, picks)


def test_adding_against_the_bare_encoder(benchmark, filled, tmp_path):
    _, given, codec, payloads = filled
    some, count = given[:BATCH], iter(range(10**6))

    def add():
        with ExemplarMemory.create(
            tmp_path / str(next(count)),
            schema=Schema({"image": TokenSpec(positions=GRID * GRID, shape=(PATCH, PATCH, 3), codec="patch_jpeg")}),
            max_bytes="64MB",
            threads=2,
        ) as memory:
            assert (memory.add(some).slots >= 0).all()

    pool = ThreadPoolExecutor(2)
    ours, theirs = interleaved(
        add, lambda: list(pool.map(lambda e: codec.encode(e.tokens["image"].values), some)), rounds=5
    )
    assert [codec.encode(e.tokens["image"].values) for e in some] == payloads[:BATCH]
    benchmark.extra_info["of_bare_encoder"] = round(theirs / ours, 3)
    benchmark.pedantic(add, rounds=3)
    pool.shutdown()
