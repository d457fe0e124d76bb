"""Faults that earlier stores had, each kind with a test of its own: damage, full disks and half-done work."""

import contextlib
import itertools
import os
import resource
import shutil
import threading
import tracemalloc

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.codecs import ScalarQuantisation
from exmem.errors import ExmemError, FormatError, StoreIOError
from exmem.memory.maintenance import check, compact, repair
from tests.driver.faults import KILLED, Fault, Watched, in_a_child, within_limit
from tests.exemplars import folder_bytes
from tests.store.made import (
    BLOBS,
    NUMBERS,
    QUICK,
    TEXT,
    assert_within,
    blob,
    contents,
    numbered,
    segment_files,
    text,
)


@pytest.fixture
def folder(tmp_path):
    """Some numbered exemplars in several segments, committed."""
    with ExemplarMemory.create(tmp_path / "m", schema=NUMBERS, max_bytes=100_000, **QUICK) as memory:
        memory.add([numbered(number, label=number % 4) for number in range(400)])
    return tmp_path / "m"


# A bit in a catalog chunk.


def test_a_damaged_catalog_is_an_error_in_either_mode_not_a_smaller_memory(tmp_path, folder):
    chunks = [path for path in segment_files(folder) if "catalog" in path.relative_to(folder).parts]
    assert chunks
    for number, chunk in enumerate(chunks):
        name = chunk.relative_to(folder)
        for kind in ("flip", "cut", "gone", "empty"):
            place = tmp_path / f"{number}-{kind}"
            shutil.copytree(folder, place)
            data = bytearray(chunk.read_bytes())
            data[len(data) // 2] ^= 4
            if kind == "gone":
                (place / name).unlink()
            else:
                (place / name).write_bytes({"flip": bytes(data), "cut": bytes(data[:-3]), "empty": b""}[kind])
            for mode in ("r", "r+"):
                with pytest.raises(ExmemError) as caught:
                    ExemplarMemory.open(place, mode, threads=1)
                assert chunk.name in str(caught.value)


# Kills while arrays are made; a shard of 0 bytes; a full disk.


@pytest.mark.slow
@pytest.mark.kills
def test_check_tells_of_nothing_after_kills_full_disks_and_discards(tmp_path, one_in):
    folder = tmp_path / "m"
    ExemplarMemory.create(folder, schema=BLOBS, max_bytes=60_000, **QUICK).close()
    for number in one_in(3, itertools.count()):

        def act(number=number):
            memory = ExemplarMemory.open(folder, "r+", **QUICK)
            with Watched(Fault("kill", number)):
                memory.add([blob(160 * (turn + 1), seed=turn, label=turn) for turn in range(12)])
                memory.discard()
                memory.add([blob(4000, seed=number)])
                memory.commit()

        status = in_a_child(act)
        with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
            with Watched(Fault("ENOSPC", number % 9, lasting=True)), contextlib.suppress(StoreIOError):
                memory.add([blob(3000, seed=turn, label=turn) for turn in range(9)])
                memory.commit()
            memory.discard()
            assert_within(memory, folder)
        assert check(folder) == []
        if status == 0:
            break
    assert number > 5


def test_an_empty_shard_is_damage_that_is_found_and_repaired(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=BLOBS, max_bytes=80_000, **QUICK) as memory:
        memory.add([blob(1600, seed=seed, label=seed % 3) for seed in range(30)])
    held = contents(ExemplarMemory.open(folder, threads=1))
    segment_files(folder)[0].write_bytes(b"")
    bad = {slot for damage in check(folder) for slot in damage.slots}
    assert 0 < len(bad) < 30
    report = repair(folder)
    assert set(report.dropped) == bad
    assert not report.left
    assert check(folder) == []
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert contents(memory) == {slot: found for slot, found in held.items() if slot not in bad}


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize("when", ["before", "middle", "after"])
def test_a_compaction_that_is_killed_anywhere_is_done_by_the_next(tmp_path, folder, when, one_in):
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        memory.evict(memory.slots[::2])
        held, limit = contents(memory), memory.max_bytes
    for number in one_in(7, itertools.count()):
        place = tmp_path / f"copy{number}"
        shutil.copytree(folder, place)

        def act(number=number, place=place):
            with Watched(Fault("kill", number, when), within_limit(place, lambda: limit)):
                compact(place)

        status = in_a_child(act)
        assert status in {0, KILLED}
        assert contents(ExemplarMemory.open(place, threads=1)) == held
        before = folder_bytes(place)
        report = compact(place)
        assert report.after_bytes <= before + 16  # digits of the document
        assert contents(ExemplarMemory.open(place, threads=1)) == held
        assert check(place) == []
        assert {path.name for path in place.parent.iterdir() if path.name.startswith(f".{place.name}")} == set()
        if status == 0:
            break
    assert number > 3


# Things under a chunk's name that are no chunk.


@pytest.mark.parametrize("kind", ["sparse", "fifo", "folder", "link"])
def test_what_stands_in_the_place_of_a_file_is_refused_without_reading_or_waiting(tmp_path, folder, kind, one_in):
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    documents = [name for name in names if name.name == "zarr.json"]
    chunks = [name for name in names if name.name != "zarr.json"]
    for number, name in enumerate([*documents, *one_in(6, chunks)]):
        place = tmp_path / str(number)
        shutil.copytree(folder, place)
        path = place / name
        data = path.read_bytes()
        path.unlink()
        if kind == "sparse":
            path.write_bytes(data)
            os.truncate(path, 2**30)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        tracemalloc.start()
        guard = threading.Timer(60, os._exit, (99,))  # hanging is the fault that is looked for
        guard.start()
        try:
            for act in (lambda place=place: reads_all(place, one_in), lambda place=place: check(place)):
                with contextlib.suppress(ExmemError):
                    act()
            if "lock" not in name.parts:
                with contextlib.suppress(ExmemError):
                    ExemplarMemory.open(place, "r+", **QUICK).close()
            assert tracemalloc.get_traced_memory()[1] < 2**26
        finally:
            guard.cancel()
            tracemalloc.stop()


def reads_all(place, one_in):
    with ExemplarMemory.open(place, threads=1) as memory:
        for slot in one_in(9, memory.slots.tolist()):  # a segment has more
            with contextlib.suppress(ExmemError):
                found = memory.read([slot])
                assert found.extras["e"].tolist() == [slot]


# More shards than descriptors.


def test_a_read_over_more_segments_than_a_process_may_open_files(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=BLOBS, max_bytes=2_000_000, **QUICK) as memory:
        for seed in range(150):
            memory.add([blob(8192, seed=seed)])
            memory.commit()
        held = contents(memory)
    assert len(held) == 150

    def act():
        os.closerange(3, 1024)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        for _ in range(36):  # as a program that has others open
            os.open(os.devnull, os.O_RDONLY)
        for mode in ("r", "r+"):
            with ExemplarMemory.open(folder, mode, **QUICK) as memory:
                assert contents(memory) == held
                for order in (memory.slots, memory.slots[::-1], np.random.default_rng(0).permutation(memory.slots)):
                    assert len(memory.read(order)) == 150

    assert in_a_child(act) == 0


def test_a_reader_is_told_when_the_store_is_no_store_any_more(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        memory.add([text(number) for number in range(50)])
    (folder / "zarr.json").write_text("{}")
    with pytest.raises(FormatError):
        ExemplarMemory.open(folder)


def trained_memory(place, *, eras):
    """A memory whose codec was trained, of one or two eras; and what it holds."""
    rng = np.random.default_rng(0)
    config = ScalarQuantisation.train(rng.normal(size=(64, 8)).astype(np.float32), bits=2)
    schema = Schema({"f": TokenSpec(positions=1, shape=(8,), dtype="float32", codec=config)})
    sets = [TokenSet.dense(rng.normal(size=(1, 8)).astype(np.float32)) for _ in range(300)]
    with ExemplarMemory.create(place, schema=schema, max_bytes="100kB", **QUICK) as memory:
        memory.add([Exemplar({"f": one}, label=0) for one in sets[:200]])
        memory.commit()
        if eras == 2:
            memory.resize("4MB")
        memory.add([Exemplar({"f": one}, label=1) for one in sets[200:]])
        memory.commit()
        return sorted({int(path.name[1:]) for path in place.glob("e[0-9]*")}), memory.read(memory.slots).tokens[
            "f"
        ].values


def test_metadata_that_alone_holds_what_a_codec_was_trained_to_is_named(tmp_path):
    eras, _ = trained_memory(tmp_path / "m", eras=1)
    file = tmp_path / "m" / f"e{eras[-1]}" / "f" / "zarr.json"
    file.write_text(file.read_text().replace('"shape"', '"sh4pe"'))
    for act in (check, repair):
        with pytest.raises(FormatError, match=r"f/zarr.json is broken .*it alone holds .* put it back from a copy"):
            act(tmp_path / "m")


def test_what_a_codec_was_trained_to_is_taken_from_another_era(tmp_path):
    eras, expected = trained_memory(tmp_path / "m", eras=2)
    assert len(eras) == 2
    file = tmp_path / "m" / f"e{eras[-1]}" / "f" / "zarr.json"
    file.write_text(file.read_text().replace('"shape"', '"sh4pe"'))
    assert [damage.file for damage in check(tmp_path / "m")] == [f"e{eras[-1]}/f/zarr.json"]
    report = repair(tmp_path / "m")
    assert (report.dropped, report.left) == ((), ())
    with ExemplarMemory.open(tmp_path / "m") as memory:
        np.testing.assert_array_equal(memory.read(memory.slots).tokens["f"].values, expected)
