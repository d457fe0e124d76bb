"""Format 1 is standard Zarr v3, and stores of this release open for ever."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

from exmem import ExemplarMemory
from exmem.errors import ReadOnlyError, StoreIOError
from exmem.store.budgeted import BudgetedObjects
from exmem.store.chunks import build_shard, decode_rows, encode_rows, shard_bytes, strip_crc
from exmem.store.objects import LocalObjects
from tests.exemplars import assert_same, exemplar, schema

GOLDEN = Path(__file__).parent / "data" / "format1-exmem0.1.0"


@pytest.fixture(scope="module", params=["lossless", "patch_jpeg"])
def stored(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with ExemplarMemory.create(folder, schema=schema(request.param), max_bytes="1MB") as memory:
        memory.add([exemplar(seed, label=seed % 4, priority=seed / 7) for seed in range(70)])
        memory.commit()
        memory.evict([3, 65])
    return folder


def test_zarr_reads_every_array_and_finds_what_exmem_finds(stored):
    memory, group = ExemplarMemory.open(stored), zarr.open_group(stored, mode="r")
    batch = memory.read(memory.slots)
    for row, slot in enumerate(memory.slots.tolist()):
        for name in ("image", "text"):
            tokens = batch.exemplar(row).tokens[name]
            values, keep = group[f"{name}/values"][slot], group[f"{name}/keep"][slot]
            positions = np.flatnonzero(np.unpackbits(keep, bitorder="little"))
            np.testing.assert_array_equal(positions, tokens.positions)
            np.testing.assert_array_equal(values[: len(tokens)], tokens.values)
            assert not values[len(tokens) :].any()
        np.testing.assert_array_equal(group["extras/embedding"][slot], batch.extras["embedding"][row])
    catalog = group["catalog"]
    assert catalog.shape == (memory.next_slot, len(catalog.attrs["exmem"]["columns"]))
    live = np.flatnonzero(catalog[:, 2] >= 0)
    assert live.tolist() == memory.slots.tolist()
    assert catalog[:, 0][live].tolist() == memory.labels.tolist()
    assert catalog[:, 1][live].view(np.float64).tolist() == memory.priorities.tolist()


def test_tensorstore_reads_every_array_of_built_in_codecs(stored):
    group = zarr.open_group(stored, mode="r")
    for path in ("catalog", "image/keep", "text/keep", "text/values", "extras/task", "extras/embedding"):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(stored / path)}}
        found = tensorstore.open(spec, read=True).result()[...].read().result()
        np.testing.assert_array_equal(found, group[path][...])


def test_zarr_writes_payloads_that_zarr_reads_back(stored, tmp_path):
    source = zarr.open_group(stored, mode="r")["image/values"]
    document = json.loads((stored / "image/values/zarr.json").read_text())
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "zarr.json").write_text(json.dumps(document))
    copy = zarr.open_array(tmp_path / "copy", mode="r+")
    copy[:4] = source[:4]
    if "patch_jpeg" in json.dumps(document):
        assert np.abs(copy[:4].astype(int) - source[:4]).mean() < 3  # JPEG of a JPEG
    else:
        np.testing.assert_array_equal(copy[:4], source[:4])
    assert (copy[:4].reshape(4, -1).any(axis=1) == source[:4].reshape(4, -1).any(axis=1)).all()


def test_an_empty_store_is_a_zarr_group(tmp_path):
    ExemplarMemory.create(tmp_path, schema=schema(), max_bytes="100kB").close()
    group = zarr.open_group(tmp_path, mode="r")
    assert group["catalog"].shape[0] == 0
    assert group["text/values"].shape[0] >= 0


def test_stores_of_older_releases_read_as_when_they_were_written(tmp_path):
    expected = json.loads((GOLDEN / "expected.json").read_text())
    shutil.copytree(GOLDEN / "store", tmp_path / "store")
    with ExemplarMemory.open(tmp_path / "store", mode="r+") as memory:
        assert memory.slots.tolist() == expected["slots"]
        assert memory.charges == expected["charges"]
        for found, seed in zip(memory.read(memory.slots), expected["seeds"], strict=True):
            given = exemplar(seed, label=seed % 3, priority=-seed)
            assert_same(found, given, exact=False)
            error = found.tokens["image"].values.astype(int) - given.tokens["image"].values
            assert np.abs(error).mean() < 12  # JPEG at quality 75 of these photographs; measured 3-9
            np.testing.assert_array_equal(found.tokens["text"].values, given.tokens["text"].values)
        memory.add([exemplar(99)])


def test_a_shard_has_exactly_the_size_that_is_planned():
    chunks = {0: b"abc1234", 5: b"x1234"}
    shard = build_shard(chunks, 6)
    assert len(shard) == shard_bytes(4, 2, 6) == 3 + 1 + 2 * 4 + 6 * 16 + 4
    index = np.frombuffer(strip_crc(shard[-100:]), "<u8").reshape(6, 2)
    assert index[0].tolist() == [0, 7]
    assert index[5].tolist() == [7, 5]
    assert (index[1:5] == 2**64 - 1).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_survive_encoding(transposed):
    rows = np.arange(12, dtype=np.int64).reshape(4, 3)
    data = encode_rows(rows, transposed=transposed)
    np.testing.assert_array_equal(decode_rows(data, (4, 3), "int64", transposed=transposed), rows)


def test_budgeted_objects_refuse_a_put_beyond_the_budget_and_count_the_old_object_too(tmp_path):
    objects = BudgetedObjects(LocalObjects(tmp_path), max_bytes=100)
    objects.put("a", b"x" * 60)
    with pytest.raises(Exception, match="the budget is 100"):
        objects.put("a", b"x" * 41)
    objects.put("a", b"x" * 40)
    assert objects.total_bytes == 40
    objects.delete("a")
    assert (objects.total_bytes, objects.sizes) == (0, {})


def test_the_largest_object_is_known_and_knowing_it_does_not_grow_with_the_number_of_puts(tmp_path):
    objects = BudgetedObjects(LocalObjects(tmp_path, durable=False), max_bytes=10**6)
    for turn in range(2000):
        objects.put(f"a/c.{turn % 5}", bytes(1 + turn * 7 % 97))
        assert objects.largest() == max(objects.sizes.values())
        assert objects.largest(without={"a/c.0"}) == max(
            [s for k, s in objects.sizes.items() if k != "a/c.0"], default=0
        )
    assert objects.largest(groups=["a"]) == 0
    assert sum(map(len, objects._largest.values())) < 200


@pytest.mark.parametrize(
    ("number", "kind"), [(5, StoreIOError), (28, StoreIOError), (13, ReadOnlyError), (30, ReadOnlyError)]
)
def test_a_failing_disk_is_a_typed_error_and_leaves_no_temporary_file(tmp_path, monkeypatch, number, kind):
    objects = LocalObjects(tmp_path)
    objects.put("a/b", b"old")

    def fail(*_):
        raise OSError(number, "made up")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(kind):
            objects.put("a/b", b"new")
    assert objects.sizes() == {"a/b": 3}
    assert objects.get("a/b") == b"old"
