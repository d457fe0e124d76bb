"""Sizes and speeds of a store against the bare codec, copying, and Zarr's own indexing; each asserts what it read.

Run `make bench`. A ratio is measured in one process, the two sides in turn, and is reported, never asserted.
"""

import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from bench.photographs import BATCH, COUNT, GRID, KEPT, PATCH, SPEC, fill, masked
from bench.timing import interleaved
from exmem import Exemplar, ExemplarMemory, Schema, TokenSpec
from exmem.codecs import PatchJpeg
from exmem.store.catalog import place_of, segment_of
from tests.exemplars import crop, folder_bytes


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "memory"
    return (folder, *fill(folder, "patch_jpeg"))


@pytest.mark.parametrize(
    ("max_bytes", "grid", "patch", "kept"), [("64MB", 12, 32, 66), ("1MB", 8, 14, 40)], ids=["64MB-12kB", "1MB-2kB"]
)
def test_bytes_over_payload(benchmark, tmp_path, max_bytes, grid, patch, kept):
    """A full memory, image patches alone: everything on disk over the sum of encoded payloads."""
    spec = TokenSpec(positions=grid * grid, shape=(patch, patch, 3), codec="patch_jpeg")
    budget = 64_000_000 if max_bytes == "64MB" else 1_000_000
    memory = ExemplarMemory.create(
        tmp_path / "m", schema=Schema({"image": spec}), max_bytes=max_bytes, threads=2, durable=False
    )
    pool = [masked(seed, grid=grid, patch=patch, kept=kept) for seed in range(200)]
    payload, number = 0, 0
    while memory.used_bytes < 0.95 * budget:
        report = memory.add([Exemplar({"image": tokens}, label=0) for tokens in pool])
        assert not len(report.evicted)
        number += int((report.slots >= 0).sum())
        payload += report.added_bytes
        memory.commit()
        if (report.slots < 0).any():
            break
    memory.close()
    total = benchmark.pedantic(folder_bytes, (tmp_path / "m",), rounds=1)
    benchmark.extra_info["overhead_percent"] = round(100 * (total / payload - 1), 2)
    benchmark.extra_info["bytes_an_exemplar"] = round(total / number)
    benchmark.extra_info["exemplars"] = number


def test_size_of_a_masked_photograph(benchmark, filled):
    """384 px, 32 px patches, 40 % kept, against the raw picture; and the header cost of a 64 px exemplar."""
    _, given, codec, payloads = filled
    raw = (GRID * PATCH) ** 2 * 3
    found = [codec.decode(payload) for payload in payloads[:20]]
    errors = [np.mean((a.astype(float) - e.tokens["image"].values) ** 2) for a, e in zip(found, given, strict=False)]
    quality = benchmark.pedantic(lambda: float(np.mean([10 * np.log10(255**2 / error) for error in errors])), rounds=1)
    benchmark.extra_info["raw_over_stored"] = round(raw / np.mean([len(payload) for payload in payloads]), 1)
    benchmark.extra_info["psnr_db"] = round(quality, 1)
    small = PatchJpeg(shape=(16, 16, 3))
    tiles = crop(1, 64).reshape(4, 16, 4, 16, 3).transpose(0, 2, 1, 3, 4).reshape(16, 16, 16, 3)
    whole = small._encode_image(small._to_image(np.ascontiguousarray(tiles)))
    scan = len(whole) - len(small._header) - 2
    benchmark.extra_info["header_bytes_of_a_64_px_exemplar"] = len(small.encode(np.ascontiguousarray(tiles))) - scan


@pytest.mark.one_in(4)
@pytest.mark.slow
@pytest.mark.parametrize("codec", ["patch_jpeg", "patch_webp", "lossless", "raw"])
def test_random_batches_against_the_bare_decoder(benchmark, tmp_path, codec):
    """A batch of 64 again and again, two threads; the other side decodes bytes in RAM into an array, checks nothing."""
    given, bare, payloads = fill(tmp_path / "m", codec)
    memory = ExemplarMemory.open(tmp_path / "m", threads=2)
    verifying = ExemplarMemory.open(tmp_path / "m", threads=2, verify="always")
    slots, rng, pool = memory.slots, np.random.default_rng(1), ThreadPoolExecutor(2)
    picks = rng.choice(len(slots), BATCH, replace=False)
    shape = (BATCH, KEPT, PATCH, PATCH, 3)

    def ours():
        return memory.read(slots[picks]).tokens["image"].values

    def theirs():
        out = np.empty(shape, np.uint8)

        def decode(part):
            for at in part:
                bare.decode_into(payloads[picks[at]], out[at])

        list(pool.map(decode, (range(0, BATCH, 2), range(1, BATCH, 2))))
        return out

    def checked():
        return verifying.read(slots[picks]).tokens["image"].values

    def copied():
        out = np.empty(shape, np.uint8)
        for at, pick in enumerate(picks.tolist()):
            out[at] = given[pick].tokens["image"].values
        return out

    np.testing.assert_array_equal(ours(), theirs())
    assert ours().any()

    mine, decoder = interleaved(ours, theirs)
    again, always, copying = interleaved(ours, checked, copied)
    benchmark.extra_info["of_the_time_where_each_read_is_verified"] = round(again / always, 2)
    benchmark.extra_info["of_bare_decoder"] = round(decoder / mine, 2)
    benchmark.extra_info["of_copying_in_RAM"] = round(copying / again, 2)
    benchmark.extra_info["exemplars_a_second"] = round(BATCH / mine)
    benchmark(ours)
    pool.shutdown()


def test_random_reads_against_zarr(benchmark, filled):
    folder, _, _, _ = filled
    memory, group = ExemplarMemory.open(folder, threads=2), zarr.open_group(folder, mode="r")
    catalog, state = memory._store.catalog, memory._store.state
    picks = np.random.default_rng(2).choice(memory.slots, 16, replace=False)
    where, rows = catalog.where_at(catalog.find(picks)), state.eras[state.era].rows
    array, places = group[f"e{state.era}/image"], (segment_of(where) % 2**36 * rows + place_of(where)).tolist()
    found = []

    def by_zarr():
        found[:] = [array[place] for place in places]

    ours, theirs = interleaved(lambda: memory.read(picks), by_zarr, rounds=5)
    np.testing.assert_array_equal(np.stack(found)[:, :KEPT], memory.read(picks).tokens["image"].values)
    benchmark.extra_info["times_zarr"] = round(theirs / ours, 1)
    benchmark.extra_info["zarr_exemplars_a_second"] = round(len(picks) / theirs)
    benchmark(memory.read, picks)


@pytest.mark.one_in(4)
@pytest.mark.slow
@pytest.mark.parametrize("durable", [True, False], ids=["durable", "not-durable"])
@pytest.mark.parametrize("batch", [COUNT, 10])
def test_adding_against_the_bare_encoder(benchmark, filled, tmp_path, batch, durable):
    """256 exemplars in batches, one commit, opening included; the other side encodes into memory."""
    _, given, codec, payloads = filled
    pool, count = ThreadPoolExecutor(2), iter(range(10**6))

    def ours():
        place = tmp_path / str(next(count))
        with ExemplarMemory.create(
            place, schema=Schema({"image": SPEC}), max_bytes="64MB", threads=2, durable=durable
        ) as memory:
            for start in range(0, COUNT, batch):
                assert (memory.add(given[start : start + batch]).slots >= 0).all()

    def theirs():
        return list(pool.map(lambda exemplar: codec.encode(exemplar.tokens["image"].values), given))

    assert theirs() == payloads
    mine, encoder = interleaved(ours, theirs, rounds=7)
    benchmark.extra_info["of_bare_encoder"] = round(encoder / mine, 2)
    benchmark.pedantic(ours, rounds=3)
    pool.shutdown()


def test_importing(benchmark):
    script = "import time; t = time.perf_counter(); import exmem; print(time.perf_counter() - t)"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}

    def run():
        told = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment
        )
        return float(told.stdout)

    benchmark.extra_info["seconds"] = round(statistics.median(run() for _ in range(5)), 3)
    benchmark.pedantic(run, rounds=1)
