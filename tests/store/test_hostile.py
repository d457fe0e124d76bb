"""Stores made to hurt: a typed error, no allocation beyond what the schema allows, nothing outside is touched."""

import base64
import json
import shutil
import tracemalloc

import numpy as np
import pytest
from numcodecs.zstd import Zstd

from exmem import ExemplarMemory
from exmem.errors import CodecError, CorruptExemplarError, ExmemError, FormatError, SchemaError
from exmem.memory.maintenance import check
from exmem.store.format.chunks import append_crc, build_shard, decode_rows, encode_rows
from exmem.store.format.documents import seal
from tests.exemplars import exemplar, schema
from tests.store.made import QUICK

HUGE = [2**31, 2**62, 10**30, -1, 1.5, "7", None, [1], {}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "m"
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes="1MB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 3, kept=1) for seed in range(12)])
        memory.commit()
        memory.evict([1, 5])
    return folder


@pytest.fixture
def folder(tmp_path, whole):
    return shutil.copytree(whole, tmp_path / "m")


def edit(file, change):
    """Change metadata and seal it again: whoever made the store knows the checksum too."""
    document = json.loads(file.read_text())
    change(document)
    file.write_bytes(seal(document))


def own_of(folder, key):
    return json.loads((folder / key).read_text())["attributes"]["exmem"]


def edit_own(folder, key, **changes):
    edit(folder / key, lambda document: document["attributes"]["exmem"].update(changes))


def edit_era(folder, **changes):
    edit(folder / "state" / "zarr.json", lambda d: d["attributes"]["exmem"]["eras"]["0"].update(changes))


def read_everything(folder):
    tracemalloc.start()
    try:
        memory = ExemplarMemory.open(folder, threads=1)
        assert repr(memory)
        memory.summary()
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


def use_everything(folder):
    """Read it, then write to it: each a success or a typed error, and bounded."""
    for act in (read_everything, write_a_little):
        try:
            act(folder)
        except ExmemError:
            continue


def write_a_little(folder):
    tracemalloc.start()
    try:
        with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
            memory.add([exemplar(50, kept=2)])
            memory.commit()
            memory.evict(memory.slots[:1])
            memory.compact()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 * 2**20, f"{peak:,} bytes were allocated"


@pytest.mark.one_in(2)
@pytest.mark.parametrize("value", HUGE, ids=str)
@pytest.mark.parametrize(
    "name",
    ["id", "generation", "revision", "next_slot", "max_bytes", "charges", "target", "eras", "max_exemplars", "wanted"],
)
def test_absurd_values_in_the_document(folder, name, value):
    edit_own(folder, "state/zarr.json", **{name: value})
    use_everything(folder)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("value", [*HUGE, {"target": 2**70}, {"target": "x"}, {"max_bytes": 1}], ids=str)
@pytest.mark.parametrize("name", ["charges", "wanted", "reservoir"])
def test_absurd_values_in_the_mappings_of_the_document(folder, name, value):
    for own in (value, {"means": value}, {"target": value}, {"target": 1024, "max_bytes": value}, {"seed": value}):
        edit_own(folder, "state/zarr.json", **{name: own})
        use_everything(folder)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("value", [*HUGE, 0, 1, 5, 255, 257], ids=str)
@pytest.mark.parametrize("name", ["rows", "length", "given", "open", "open_rows", "live", "dead"])
def test_absurd_values_in_an_era(folder, name, value):
    edit_era(folder, **{name: value})
    use_everything(folder)


@pytest.mark.parametrize(
    "packed",
    [b"\x80", b"\xff" * 9 + b"\x7f", b"\xff" * 30, b"\x00" * 20_000, b"\xff\xff\x03\x00", b"\x00\x00", b"\x00\xff"],
    ids=lambda packed: f"{packed[:6].hex()}-{len(packed)}",
)
@pytest.mark.parametrize("name", ["live", "dead"])
def test_absurd_bytes_in_the_segments_of_an_era(folder, name, packed):
    for given in (own_of(folder, "state/zarr.json")["eras"]["0"]["given"], 2**31):
        edit_era(folder, given=given, **{name: base64.b64encode(packed).decode()})
        use_everything(folder)


@pytest.mark.parametrize("number", ["-1", "x", "1e9", "01", "9" * 30, "9" * 5000, str(2**40), str(2**18), ""], ids=repr)
def test_absurd_numbers_of_eras(folder, number):
    era = own_of(folder, "state/zarr.json")["eras"]["0"]
    empty = era | {"live": "", "dead": "", "open": -1, "open_rows": 0}
    for eras in ({number: era}, {"0": era, number: era}, {"0": era, number: empty}):
        edit_own(folder, "state/zarr.json", eras=eras)
        use_everything(folder)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("value", HUGE, ids=str)
@pytest.mark.parametrize("name", ["positions", "shape", "dtype", "codec", "schema", "modalities", "settings", "format"])
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
    with pytest.raises(ExmemError):
        read_everything(folder)


@pytest.mark.parametrize("value", HUGE, ids=str)
@pytest.mark.parametrize("name", ["attrs", "class_names"])
def test_absurd_notes_in_the_root(folder, name, value):
    for notes in (value, {"1": value}, {"x": value}):
        edit_own(folder, "zarr.json", settings=own_of(folder, "zarr.json")["settings"] | {name: notes})
        try:
            read_everything(folder)
            memory = ExemplarMemory.open(folder)
            assert isinstance(memory.attrs, dict)
            assert all(isinstance(text, str) for text in memory.class_names.values())
        except ExmemError:
            continue


@pytest.mark.parametrize("value", [*HUGE, 0, 1e-300, True, float(2**63)], ids=str)
def test_absurd_quotas_in_the_root(folder, value):
    good = {"unit": "counts", "weights": {"1": 2.0}}

    def claim(quota):
        edit_own(folder, "zarr.json", settings={"eviction": "by_class", "quota": quota})

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
    settings = own_of(folder, "zarr.json")["settings"]
    for change in ({"eviction": "by_priority", "quota": {"unit": "counts", "weights": {}}}, {"eviction": ["by_class"]}):
        edit_own(folder, "zarr.json", settings=settings | change)
        with pytest.raises(FormatError):
            ExemplarMemory.open(folder)


def test_weights_for_classes_that_are_not_there_do_no_harm(folder):
    weights = {str(label): 1e12 for label in range(10, 50_000)}
    quota = {"unit": "bytes", "weights": weights}
    edit_own(folder, "zarr.json", settings={"eviction": "by_class", "quota": quota})
    read_everything(folder)
    assert set(ExemplarMemory.open(folder).summary()) == {0, 1, 2}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "NaN", "1e999", "9" * 5000, "[" * 100_000, '{"attributes":{"exmem":1e999}}'],
    ids=lambda text: text[:40],
)
@pytest.mark.parametrize(
    "name", ["zarr.json", "state/zarr.json", "e0/image/zarr.json", "e0/records/zarr.json", "lock/zarr.json"]
)
def test_metadata_that_is_no_metadata(folder, name, text):
    (folder / name).write_text(text)
    if name.startswith("lock"):
        ExemplarMemory.open(folder)  # readers do not look
        return
    with pytest.raises(FormatError, match=r"zarr\.json"):
        ExemplarMemory.open(folder)
    with pytest.raises(FormatError):
        ExemplarMemory.open(folder, "r+")


@pytest.mark.parametrize("name", ["e0/zarr.json", "e0/catalog/zarr.json"])
def test_metadata_that_says_nothing_new_is_checked_and_not_believed(folder, name):
    expected = (folder / name).read_bytes()
    held = ExemplarMemory.open(folder).slots.tolist()
    for text in ("", "[" * 100_000, '{"attributes":{"exmem":{"rows":1e999,"columns":[]}}}'):
        (folder / name).write_text(text)
        assert ExemplarMemory.open(folder).slots.tolist() == held
        assert [damage.file for damage in check(folder)] == [name]
        ExemplarMemory.open(folder, "r+", **QUICK).close()
        assert (folder / name).read_bytes() in {expected, text.encode()}


@pytest.mark.parametrize(
    "name",
    ["../image", "image/../..", "/etc", "a b", "A", "", "x" * 200, "..", "catalog/c", "\u202e", "records"],
)
def test_a_name_that_could_leave_the_folder_or_stand_for_another_is_refused(folder, name):
    edit(
        folder / "zarr.json",
        lambda d: d["attributes"]["exmem"]["schema"]["modalities"].update(
            {name: d["attributes"]["exmem"]["schema"]["modalities"]["image"]}
        ),
    )
    with pytest.raises(FormatError):
        ExemplarMemory.open(folder)


def first_chunk(folder, array):
    rows = own_of(folder, "state/zarr.json")["eras"]["0"]["rows"]
    document = json.loads((folder / "e0" / array / "zarr.json").read_text())
    file = folder / "e0" / array / "c.0.0"
    return file, rows, decode_rows(file.read_bytes(), rows, document["shape"][1], document["data_type"])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("value", [2**62, 2**40, -5, 17, -(2**63)])
@pytest.mark.parametrize("column", range(7))
def test_absurd_numbers_in_a_row_of_the_catalog(folder, column, value):
    """Slot, generation, label, priority, tokens of two modalities, payload bytes."""
    file, rows, table = first_chunk(folder, "catalog")
    assert rows >= 4
    assert table.shape[1] == 7
    table[3, column] = value
    file.write_bytes(encode_rows(table, rows, -1))
    use_everything(folder)
    if column in {2, 3}:
        assert len(ExemplarMemory.open(folder)) == 10, "any label and any priority is one"
    elif column == 6 and value == 17:
        assert [damage.slots for damage in check(folder)] == [(3,)]
    elif column != 1 or value < 0:
        with pytest.raises(FormatError):
            ExemplarMemory.open(folder)
        if column:  # a slot that cannot be is no damage: it was made up
            assert check(folder)


@pytest.mark.parametrize("column", [4, 5, 6])
def test_a_catalog_that_claims_other_sizes_than_are_stored_is_damage(folder, column):
    file, rows, table = first_chunk(folder, "catalog")
    table[3, column] += 1
    file.write_bytes(encode_rows(table, rows, -1))
    assert any(3 in damage.slots for damage in check(folder))
    with pytest.raises(CorruptExemplarError, match="exemplar 3"):
        ExemplarMemory.open(folder).read([3])


def test_a_slot_that_is_named_twice_or_was_never_given_out_is_refused(folder):
    file, rows, table = first_chunk(folder, "catalog")
    for value in (-1, 0, 500):
        changed = table.copy()
        changed[3, 0] = value
        file.write_bytes(encode_rows(changed, rows, -1))
        with pytest.raises(FormatError):
            ExemplarMemory.open(folder)


def test_a_bomb_with_a_right_checksum(folder):
    """Chunks and a payload that decompress to a gigabyte of zeros."""
    bomb = bytes(Zstd(level=19).encode(np.zeros(2**30, np.uint8)))
    assert len(bomb) < 200_000
    rows = own_of(folder, "state/zarr.json")["eras"]["0"]["rows"]
    (folder / "e0/image/c.0.0.0.0.0").write_bytes(build_shard([append_crc(b"\x01" + bomb)] * rows, rows))
    file, _, table = first_chunk(folder, "catalog")
    table[:, 6] = 1 + len(bomb)
    file.write_bytes(encode_rows(table, rows, -1))
    read_everything(folder)
    assert any(0 in damage.slots for damage in check(folder))
    (folder / "e0/records/c.0.0").write_bytes(append_crc(bomb))
    read_everything(folder)
    file.write_bytes(append_crc(bomb))
    for content in (bomb, bomb[: 10**3], bytes(Zstd(level=19).encode(np.zeros(2**22, np.uint8)))):
        file.write_bytes(append_crc(content))
        with pytest.raises(FormatError, match="damaged"):
            read_everything(folder)
        assert check(folder)


@pytest.mark.parametrize("name", ["e0/records/c.0.0", "e0", "e0/image", "state", "e0/catalog/c.0.0", "zarr.json"])
def test_a_link_inside_a_store_is_not_followed(tmp_path, folder, name):
    secret = tmp_path / "secret"
    shutil.move(folder / name, secret)
    (folder / name).symlink_to(secret)
    with pytest.raises(ExmemError), ExemplarMemory.open(folder) as memory:
        memory.read(memory.slots)
    before = sorted(path.stat().st_mtime_ns for path in [secret, *secret.rglob("*")])
    content = {path: path.read_bytes() for path in [secret, *secret.rglob("*")] if path.is_file()}
    use_everything(folder)
    assert sorted(path.stat().st_mtime_ns for path in [secret, *secret.rglob("*")]) == before
    assert {path: path.read_bytes() for path in [secret, *secret.rglob("*")] if path.is_file()} == content


@pytest.mark.parametrize(
    "codec",
    [
        {"id": "pickle"},
        {"id": "exmem.raw", "shape": [16, 16, 4], "dtype": "uint8"},
        {"id": "exmem.raw", "shape": [16, 16, 3], "dtype": "float32"},
        {"id": "exmem.lossless", "shape": [2**40, 2, 3], "dtype": "uint8"},
        {"id": "exmem.lossless", "shape": [16, 16, 3], "dtype": "object"},
        "exmem.lossless",
        None,
    ],
    ids=str,
)
def test_a_codec_that_does_not_exist_or_takes_other_tokens_is_refused(folder, codec):
    def change(document):
        document["codecs"][0]["configuration"]["codecs"][0]["configuration"]["codec"] = codec

    edit(folder / "e0" / "image" / "zarr.json", change)
    for mode in ("r", "r+"):
        with pytest.raises((FormatError, CodecError)):
            ExemplarMemory.open(folder, mode)


def test_no_pickle_can_get_in():
    from exmem import TokenSpec
    from exmem.codecs import get_codec

    with pytest.raises((SchemaError, CodecError)):
        TokenSpec(positions=4, dtype="object")
    with pytest.raises(CodecError):
        get_codec({"id": "pickle"})
