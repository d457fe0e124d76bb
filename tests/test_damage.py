"""Damage over every file: found by reading, by `check`, and dropped by `repair`, exactly."""

import json
import random
import shutil

import numpy as np
import pytest

from exmem import ExemplarMemory
from exmem.errors import CorruptExemplarError, ExmemError, FormatError, StaleSnapshotError
from exmem.upkeep import check, compact, repair
from tests.exemplars import assert_same, exemplar, folder_bytes, schema

COUNT = 24


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "m"
    with ExemplarMemory.create(folder, schema=schema("patch_webp"), max_bytes="200kB", durable=False) as memory:
        slots = memory.add([exemplar(seed, label=seed % 3, kept=1 + seed % 9) for seed in range(COUNT)]).slots
        assert (slots >= 0).all()
        memory.evict(slots[5:7])
        memory.charge("means", 100)
    return folder


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def readable(folder):
    """Slots that read right; a wrong read is a failure, an error is not."""
    memory = ExemplarMemory.open(folder, threads=1)
    good = []
    for slot in memory.slots.tolist():
        try:
            found = memory.read([slot]).exemplar(0)
        except (CorruptExemplarError, StaleSnapshotError):
            continue
        assert_same(found, exemplar(slot, label=slot % 3, kept=1 + slot % 9))
        good.append(slot)
    memory.close()
    return good


def damage_file(path, rng, kind):
    data = bytearray(path.read_bytes())
    if kind == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        data = data[: rng.randrange(len(data))]
    else:
        data += b"more"
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("kind", ["flip", "cut", "longer"])
def test_damage_in_any_file_is_found_never_read_wrong_and_repaired_exactly(tmp_path, whole, kind, request):
    rng = random.Random(kind)
    every = [path.relative_to(whole) for path in files(whole)]
    refused = dropped = 0
    rounds = max(1, int(request.config.getoption("--kills")) // 60)
    for number, name in enumerate([name for name in every for _ in range(rounds)]):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        damage_file(folder / name, rng, kind)
        if name.as_posix() in {"zarr.json", "catalog/zarr.json"}:
            refused += 1
            with pytest.raises(FormatError, match=r"zarr\.json"):
                check(folder)
            with pytest.raises(ExmemError):
                ExemplarMemory.open(folder)
            continue
        found = check(folder)
        assert name.as_posix() in {damage.file for damage in found}, f"{name} is damaged, nobody noticed"
        bad = {slot for damage in found for slot in damage.slots}
        try:
            good = readable(folder)
        except FormatError:
            good = []  # the codec of an array is damaged
        else:
            assert not bad & set(good), "what cannot be read is what is damaged"
            unread = set(range(COUNT)) - {5, 6} - set(good)
            assert unread <= bad, "everything else must be readable"
        report = repair(folder)
        assert not report.left
        assert set(report.dropped) <= bad
        assert check(folder) == []
        kept = readable(folder)
        assert sorted([*kept, *report.dropped]) == sorted(set(range(COUNT)) - {5, 6} | set(report.dropped))
        assert set(good) <= set(kept)
        with ExemplarMemory.open(folder, mode="r+") as memory:
            assert memory.used_bytes - 100 == folder_bytes(folder)
            memory.add([exemplar(77)])
        dropped += len(report.dropped)
    assert refused
    assert dropped


def test_a_missing_file_is_found_and_never_read_as_zeros(tmp_path, whole):
    for number, name in enumerate(path.relative_to(whole) for path in files(whole)):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        (folder / name).unlink()
        if name.as_posix() in {"zarr.json", "catalog/zarr.json"}:
            with pytest.raises(ExmemError):
                check(folder)
            continue
        assert check(folder), f"{name} is missing, nobody noticed"
        try:
            readable(folder)
        except FormatError:
            assert name.name == "zarr.json"
        assert not repair(folder).left
        assert check(folder) == []


def test_a_store_with_a_damaged_catalog_is_read_but_not_written_before_it_is_repaired(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "m")
    damage_file(tmp_path / "m" / "catalog" / "c.0.0", random.Random(1), "flip")
    memory = ExemplarMemory.open(tmp_path / "m")
    with pytest.raises(CorruptExemplarError, match=r"catalog/c\.0\.0"):
        memory.read([3])
    with pytest.raises(FormatError, match="exmem repair"):
        ExemplarMemory.open(tmp_path / "m", mode="r+")
    report = repair(tmp_path / "m")
    assert report.dropped == tuple(range(COUNT))
    with ExemplarMemory.open(tmp_path / "m", mode="r+") as memory:
        assert len(memory) == 0
        assert memory.add([exemplar(1)]).slots.tolist() == [COUNT]


def test_compacting_gives_back_what_dead_slots_took_and_keeps_payloads_bit_for_bit(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes="4MB", durable=False) as memory:
        slots = memory.add([exemplar(seed, label=seed % 3, priority=-seed) for seed in range(400)]).slots
        memory.commit()
        memory.evict(slots[np.arange(400) % 10 != 0])
        memory.charge("means", 1000)
    before = folder_bytes(folder)
    report = compact(folder)
    assert before < report.before_bytes < before + 500  # and the lock
    assert report.after_bytes == folder_bytes(folder) < before - 5_000
    assert list(report.slots) == slots[::10].tolist()
    with ExemplarMemory.open(folder) as memory:
        assert memory.charges == {"means": 1000}
        assert memory.max_bytes == 4_000_000
        for old, new in report.slots.items():
            assert_same(memory.read([new]).exemplar(0), exemplar(old, label=old % 3, priority=-old))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert check(folder) == []


def test_a_compaction_that_was_cut_off_between_its_renames_is_finished_by_the_next(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes="100kB", durable=False) as memory:
        memory.add([exemplar(1)])
    folder.rename(tmp_path / ".m.before-compacting")
    assert list(compact(folder).slots) == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_json_of_the_metadata_tells_its_checksum(whole):
    document = json.loads((whole / "zarr.json").read_text())
    assert document["attributes"]["exmem"]["checksum"] > 0
