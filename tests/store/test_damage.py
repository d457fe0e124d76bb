"""Damage over every file: found by reading, by `check`, and dropped by `repair`, exactly."""

import json
import random
import shutil

import numpy as np
import pytest

from exmem import ExemplarMemory
from exmem.errors import CorruptExemplarError, ExmemError, FormatError, LockedError, StaleSnapshotError
from exmem.memory.maintenance import check, compact, describe, repair
from exmem.store.format.documents import seal
from exmem.store.format.layout import parse_key
from tests.exemplars import assert_same, exemplar, folder_bytes, schema
from tests.store.made import contents

COUNT = 24
EVICTED = {5, 6, 23}
LEFT = set(range(COUNT)) - EVICTED
ESSENTIAL = {"zarr.json", "state/zarr.json"}  # nothing can be told without them


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "m"
    with ExemplarMemory.create(folder, schema=schema("patch_webp"), max_bytes="400kB", durable=False) as memory:
        slots = memory.add([exemplar(seed, label=seed % 3, kept=1 + seed % 9) for seed in range(COUNT)]).slots
        assert (slots >= 0).all()
        memory.commit()
        memory.evict(sorted(EVICTED))
        memory.charge("means", 100)
    return folder


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def names(folder):
    return [path.relative_to(folder) for path in files(folder) if path.parent.name != "lock"]  # not part of the state


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
        data += b"more" if kind == "longer" else bytes(2**25)
    path.write_bytes(bytes(data))


def assert_repaired_exactly(folder, name, *, readable_before):
    """What was found is dropped, and nothing else; what was readable is held as before."""
    found = check(folder)
    assert name.as_posix() in {damage.file for damage in found}, f"{name} is damaged, nobody noticed"
    bad = {slot for damage in found for slot in damage.slots}
    report = repair(folder)
    assert not report.left
    assert set(report.dropped) == bad
    assert check(folder) == []
    kept = readable(folder)
    with ExemplarMemory.open(folder, mode="r+", durable=False) as memory:
        assert memory.slots.tolist() == kept, "all that is held can be read"
        if readable_before is not None:
            assert sorted(kept) == sorted(readable_before)
            assert set(kept) | bad == LEFT, "everything else must be readable"
        else:  # a damaged catalog cannot name what is lost
            assert kept
            assert set(kept) <= LEFT - bad
        assert memory.charges == {"means": 100}
        assert memory.used_bytes - 100 == folder_bytes(folder)
        assert memory.add([exemplar(77)]).slots.tolist() == [COUNT]
    return bad


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flip", "cut", "longer", "far longer"])
def test_damage_in_any_file_is_found_never_read_wrong_and_repaired_exactly(tmp_path, whole, kind, request, one_in):
    rng = random.Random(kind)
    rounds = max(1, request.config.getoption("--kills") // 200)
    documents = [name for name in names(whole) if name.name == "zarr.json"]
    chunks = [name for name in names(whole) if name.name != "zarr.json"]
    refused = dropped = 0
    for number, name in enumerate([name for name in [*documents, *one_in(5, chunks)] for _ in range(rounds)]):
        folder = shutil.copytree(whole, tmp_path / str(number))
        damage_file(folder / name, rng, kind)
        if name.as_posix() in ESSENTIAL:
            refused += 1
            for act in (check, repair, ExemplarMemory.open):
                with pytest.raises(FormatError, match=r"zarr\.json"):
                    act(folder)
            continue
        try:
            good = readable(folder)
        except FormatError:
            good = None
        assert good is not None or name.name == "zarr.json" or "catalog" in name.parts
        dropped += len(assert_repaired_exactly(folder, name, readable_before=good))
        shutil.rmtree(folder)
    assert refused
    assert dropped


def test_a_missing_file_is_found_and_never_read_as_zeros(tmp_path, whole, one_in):
    for number, name in enumerate(one_in(3, names(whole))):
        folder = shutil.copytree(whole, tmp_path / str(number))
        (folder / name).unlink()
        if name.as_posix() in ESSENTIAL:
            for act in (check, repair, ExemplarMemory.open):
                with pytest.raises(ExmemError):
                    act(folder)
            continue
        try:
            good = readable(folder)
        except FormatError:
            assert name.name == "zarr.json" or "catalog" in name.parts
            good = None
        assert_repaired_exactly(folder, name, readable_before=good)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_store_with_a_damaged_catalog_is_not_opened_before_it_is_repaired(tmp_path, whole, mode):
    folder = shutil.copytree(whole, tmp_path / "m")
    chunks = [name for name in names(folder) if "catalog" in name.parts and name.name.startswith("c.")]
    damage_file(folder / chunks[0], random.Random(1), "flip")
    with pytest.raises(FormatError, match=r"catalog/c\.0\.0.*exmem repair"):
        ExemplarMemory.open(folder, mode)
    found = check(folder)
    assert [damage.file for damage in found] == [chunks[0].as_posix()]
    assert "cannot be told" in describe(found)[0]
    report = repair(folder)
    assert report.dropped == (), "it cannot tell which they were"
    with ExemplarMemory.open(folder, "r+") as memory:
        assert 0 < len(memory) < len(LEFT)
        assert report.lost >= len(LEFT) - len(memory), "it tells how many they were, at most"
        assert set(memory.slots.tolist()) < LEFT
        assert memory.add([exemplar(1)]).slots.tolist() == [COUNT]
    assert check(folder) == []


def test_when_every_chunk_of_the_catalog_is_lost_an_empty_memory_is_left(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "m")
    for name in names(folder):
        if "catalog" in name.parts and name.name.startswith("c."):
            damage_file(folder / name, random.Random(1), "cut")
    assert not repair(folder).left
    with ExemplarMemory.open(folder, "r+") as memory:
        assert len(memory) == 0
        assert memory.charges == {"means": 100}
        assert memory.add([exemplar(1)]).slots.tolist() == [COUNT]


def test_damage_in_several_files_at_once_is_repaired_exactly(tmp_path, whole):
    rng = random.Random(7)
    for number in range(12):
        folder = shutil.copytree(whole, tmp_path / str(number))
        chosen = [name for name in names(folder) if name.as_posix() not in ESSENTIAL and "catalog" not in name.parts]
        for name in rng.sample(chosen, 4):
            if name.name != "zarr.json":
                damage_file(folder / name, rng, rng.choice(["flip", "cut", "longer"]))
        good = readable(folder)
        report = repair(folder)
        assert not report.left
        assert readable(folder) == good
        assert set(good) | set(report.dropped) == LEFT
        assert not set(good) & set(report.dropped)


def test_a_repair_waits_for_no_writer(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "m")
    with ExemplarMemory.open(folder, "r+"), pytest.raises(LockedError):
        repair(folder)
    assert repair(folder).damage == ()


def test_what_no_state_refers_to_is_found_and_removed_and_what_is_foreign_is_left_alone(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "m")
    segment = next(name for name in names(folder) if name.name.startswith("c.") and "image" in name.parts)
    number = parse_key(segment.as_posix())[2]
    orphan = segment.with_name(segment.name.replace(f"c.{number}.", "c.4000.", 1))
    shutil.copy(folder / segment, folder / orphan)
    (folder / "README").write_text("mine")
    assert [(damage.file, damage.slots) for damage in check(folder)] == [(orphan.as_posix(), ())]
    report = repair(folder)
    assert report.dropped == ()
    assert not (folder / orphan).exists()
    assert (folder / "README").read_text() == "mine"


def test_compacting_gives_back_what_dead_rows_took_and_slots_and_payloads_stay(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes="8MB", durable=False) as memory:
        slots = memory.add([exemplar(seed, label=seed % 3, priority=-seed) for seed in range(400)]).slots
        memory.commit()
        memory.evict(slots[np.arange(400) % 10 != 0])
        memory.charge("means", 1000)
        held = contents(memory)
    before = folder_bytes(folder)
    report = compact(folder)
    assert report.before_bytes == before
    assert report.after_bytes == folder_bytes(folder) < before - 5_000
    with ExemplarMemory.open(folder) as memory:
        assert memory.charges == {"means": 1000}
        assert memory.max_bytes == 8_000_000
        assert memory.slots.tolist() == slots[::10].tolist()
        assert contents(memory) == held
        for slot in memory.slots.tolist():
            assert_same(memory.read([slot]).exemplar(0), exemplar(slot, label=slot % 3, priority=-slot))
    assert check(folder) == []


def test_metadata_tells_its_checksum_and_an_honest_edit_is_refused(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "m")
    for name in (name for name in names(folder) if name.name == "zarr.json"):
        data = (folder / name).read_bytes()
        document = json.loads(data)
        assert len(document["attributes"]["exmem"]["checksum"]) == 8
        assert seal(document) == data
    document = json.loads((folder / "state/zarr.json").read_text())
    document["attributes"]["exmem"]["max_bytes"] += 1
    (folder / "state/zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatError, match="checksum"):
        ExemplarMemory.open(folder)
