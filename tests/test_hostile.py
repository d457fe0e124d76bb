"""Stores made to hurt: a typed error, no allocation beyond what the schema allows, nothing outside is touched."""

import json
import shutil
import tracemalloc

import numpy as np
import pytest

from exmem import ExemplarMemory
from exmem.errors import CodecError, CorruptExemplarError, ExmemError, FormatError, SchemaError
from exmem.store.chunks import append_crc, build_shard, encode_rows
from exmem.store.layout import to_bytes
from exmem.upkeep import check
from tests.exemplars import exemplar, schema

HUGE = [2**31, 2**62, 10**30, -1, 1.5, "7", None, [1], {}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "m"
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes="200kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 3, kept=5) for seed in range(12)])
    return folder


@pytest.fixture
def folder(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "m")
    return tmp_path / "m"


def edit(file, change):
    """Change metadata and seal it again: whoever made the store knows the checksum too."""
    document = json.loads(file.read_text())
    change(document)
    file.write_bytes(to_bytes(document))


def read_everything(folder):
    tracemalloc.start()
    try:
        memory = ExemplarMemory.open(folder, threads=1)
        for slot in memory.slots.tolist()[:50]:
            try:
                memory.read([slot])
            except CorruptExemplarError:
                continue
        check(folder)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 * 2**20, f"{peak:,} bytes were allocated"


@pytest.mark.parametrize("value", HUGE, ids=str)
@pytest.mark.parametrize("name", ["generation", "shard_slots", "capacity", "shape"])
def test_absurd_counts_in_the_catalog(folder, name, value):
    def change(document):
        if name == "shape":
            document["shape"][0] = value
        else:
            document["attributes"]["exmem"][name] = value

    edit(folder / "catalog" / "zarr.json", change)
    try:
        read_everything(folder)
    except ExmemError:
        return


@pytest.mark.parametrize("value", HUGE, ids=str)
@pytest.mark.parametrize(
    "name", ["positions", "shape", "dtype", "codec", "max_bytes", "charges", "schema", "modalities"]
)
def test_absurd_values_in_the_root(folder, name, value):
    def change(document):
        own = document["attributes"]["exmem"]
        image = own["schema"]["modalities"]["image"]
        if name in image:
            image[name] = [value, value, 3] if name == "shape" else value
        elif name == "modalities":
            own["schema"]["modalities"] = value
        else:
            own[name] = value

    edit(folder / "zarr.json", change)
    try:
        read_everything(folder)
    except ExmemError:
        return
    assert name in {"max_bytes", "charges"}


@pytest.mark.parametrize("value", [*HUGE, 0, 1e-300, True, float(2**63)], ids=str)
def test_absurd_quotas_in_the_root(folder, value):
    good = {"unit": "counts", "weights": {"1": 2.0}}

    def claim(quota):
        edit(folder / "zarr.json", lambda document: document["attributes"]["exmem"].update(quota=quota))

    for quota in (value, good | {"unit": value}, good | {"weights": value}, good | {"weights": {"1": value}}):
        claim(quota)
        if quota in ({"unit": "counts", "weights": {}}, {"unit": "counts", "weights": {"1": 1.5}}):
            assert ExemplarMemory.open(folder).quota.unit == "counts"
            continue
        if quota == {"unit": "counts", "weights": {"1": 2**31}}:
            assert ExemplarMemory.open(folder).summary()[1].quota_bytes > 0
            continue
        with pytest.raises(FormatError):
            ExemplarMemory.open(folder)
    for label in ("", "cat", "1.0", "9" * 30, "9" * 5000, "-9223372036854775809"):
        claim(good | {"weights": {label: 2.0}})
        with pytest.raises(FormatError):
            ExemplarMemory.open(folder)


def test_a_quota_of_a_memory_that_knows_no_classes_and_an_unknown_eviction_are_refused(folder):
    for change in ({"eviction": "by_priority", "quota": {"unit": "counts", "weights": {}}}, {"eviction": ["by_class"]}):
        edit(folder / "zarr.json", lambda document, change=change: document["attributes"]["exmem"].update(change))
        with pytest.raises(FormatError):
            ExemplarMemory.open(folder)


def test_weights_for_classes_that_are_not_there_do_no_harm(folder):
    weights = {str(label): 1e12 for label in range(10, 50_000)}
    edit(
        folder / "zarr.json",
        lambda document: document["attributes"]["exmem"].update(quota={"unit": "bytes", "weights": weights}),
    )
    read_everything(folder)
    assert set(ExemplarMemory.open(folder).summary()) == {0, 1, 2}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "NaN", "1e999", "9" * 5000, "[" * 100_000, '{"attributes":{"exmem":1e999}}']
)
@pytest.mark.parametrize("name", ["zarr.json", "catalog/zarr.json", "image/values/zarr.json", "lock/zarr.json"])
def test_metadata_that_is_no_metadata(folder, name, text):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    if name.startswith("lock"):
        ExemplarMemory.open(folder)  # readers do not look
        return
    with pytest.raises(FormatError):
        ExemplarMemory.open(folder)


@pytest.mark.parametrize(
    "name", ["../image", "image/../..", "/etc", "a b", "A", "", "x" * 200, "..", "catalog/c", "\u202e"]
)
def test_a_name_that_could_leave_the_folder_is_refused(folder, name):
    edit(
        folder / "zarr.json",
        lambda d: d["attributes"]["exmem"]["schema"]["modalities"].update(
            {name: d["attributes"]["exmem"]["schema"]["modalities"]["image"]}
        ),
    )
    with pytest.raises(FormatError):
        ExemplarMemory.open(folder)


@pytest.mark.parametrize("value", [2**40, -5, 17])
@pytest.mark.parametrize("column", [2, 3, 4])
def test_absurd_sizes_in_a_row_of_the_catalog(folder, column, value):
    memory = ExemplarMemory.open(folder)
    table = np.full((1024, len(memory._store.catalog.columns)), -1, np.int64)
    table[:12] = memory._store.catalog.rows(np.arange(12))
    table[3, column] = value
    (folder / "catalog" / "c.0.0").write_bytes(encode_rows(table, transposed=True))
    read_everything(folder)
    assert check(folder)
    if column < 4 or value < 0:  # the last column, the bytes of a payload, is not what reading goes by
        with pytest.raises(CorruptExemplarError):
            ExemplarMemory.open(folder).read([3])


def test_a_bomb_with_a_right_checksum(folder):
    """A chunk that decompresses to a gigabyte of zeros."""
    from numcodecs.zstd import Zstd

    bomb = bytes(Zstd(level=19).encode(np.zeros(2**30, np.uint8)))
    assert len(bomb) < 200_000
    for name in ("image/keep/c.0.0", "text/values/c.0.0", "catalog/c.0.0"):
        (folder / name).write_bytes(append_crc(bomb))
    count = exemplar(3, kept=5).tokens["image"]
    payload = bytes([len(count.positions)]) + bomb
    shard = folder / "image" / "values"
    size = next(shard.glob("c.*"))
    slots = ExemplarMemory.open(folder)._store.catalog.shard_slots
    size.write_bytes(build_shard({3 % slots: append_crc(payload)}, slots))
    read_everything(folder)


@pytest.mark.parametrize("name", ["image/keep/c.0.0", "image", "image/values", "catalog/c.0.0", "zarr.json"])
def test_a_link_inside_a_store_is_not_followed(tmp_path, folder, name):
    secret = tmp_path / "secret"
    shutil.move(folder / name, secret)
    (folder / name).symlink_to(secret)
    with pytest.raises(ExmemError), ExemplarMemory.open(folder) as memory:
        memory.read(memory.slots)
    before = sorted(path.stat().st_mtime_ns for path in [secret, *secret.rglob("*")])
    with pytest.raises(ExmemError), ExemplarMemory.open(folder, mode="r+") as memory:
        memory.evict(memory.slots[:3])
    assert sorted(path.stat().st_mtime_ns for path in [secret, *secret.rglob("*")]) == before


def test_a_codec_that_does_not_exist_or_takes_other_tokens_is_refused(folder):
    def change(codec):
        def work(document):
            document["codecs"][0]["configuration"]["codecs"][0]["configuration"]["codec"] = codec

        return work

    for codec in (
        {"id": "pickle"},
        {"id": "exmem.raw", "shape": [16, 16, 3], "dtype": "uint8"},
        {"id": "exmem.lossless", "shape": [2**40, 2, 3], "dtype": "uint8"},
        {"id": "exmem.lossless", "shape": [16, 16, 3], "dtype": "object"},
        "exmem.lossless",
    ):
        edit(folder / "image" / "values" / "zarr.json", change(codec))
        with pytest.raises(FormatError):
            ExemplarMemory.open(folder)


def test_no_pickle_can_get_in():
    from exmem import TokenSpec
    from exmem.codecs import get_codec

    with pytest.raises((SchemaError, CodecError)):
        TokenSpec(positions=4, dtype="object")
    with pytest.raises(CodecError):
        get_codec({"id": "pickle"})
