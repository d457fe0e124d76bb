"""Format 1 is standard Zarr v3, its encodings are exact, and stores of this release open for ever."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st

from exmem import ExemplarMemory
from exmem.errors import CodecError, FormatError
from exmem.memory.maintenance import check
from exmem.store.format.chunks import build_shard, decode_rows, encode_rows, index_bytes, most_row_bytes, parse_index
from exmem.store.format.documents import own_attributes, seal, unseal
from exmem.store.format.layout import parse_key
from exmem.store.format.numbers import dead_token, pack_dead, pack_increasing, unpack_dead, unpack_increasing
from exmem.store.format.state import Era, State, parse_state
from tests.exemplars import assert_same, exemplar, schema

GOLDEN = Path(__file__).parents[1] / "data" / "format1-exmem0.1.0"


@pytest.fixture(scope="module", params=["lossless", "patch_jpeg"])
def stored(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with ExemplarMemory.create(folder, schema=schema(request.param), max_bytes="1MB") as memory:
        memory.add([exemplar(seed, label=seed % 4, priority=seed / 7) for seed in range(70)])
        memory.commit()
        memory.evict([3, 65])
    return folder


def era_of(folder):
    """The era with the live segments, and its name; every test store here has one."""
    state = parse_state((folder / "state" / "zarr.json").read_bytes(), "here")
    assert list(state.eras) == [0]
    return state.eras[0]


def places_of(folder, group):
    """Where the held exemplars lie in the arrays, as the page of the format says: row of the array by slot."""
    era, catalog = era_of(folder), group["e0/catalog"][...]
    found = {}
    for segment in era.live.tolist():
        table = catalog[segment * era.rows : (segment + 1) * era.rows]
        slots, used = np.cumsum(table[:, 0]), int((table[:, 1] >= 0).sum())
        used = era.open_rows if segment == era.open else used
        for place in range(used):
            if not era.dead.get(segment, 0) >> place & 1:
                found[int(slots[place])] = segment * era.rows + place
    return found


def test_zarr_reads_every_array_and_finds_what_exmem_finds(stored):
    memory, group = ExemplarMemory.open(stored), zarr.open_group(stored, mode="r")
    batch, places = memory.read(memory.slots), places_of(stored, group)
    fields, columns = group["e0/records"].attrs["exmem"]["fields"], group["e0/catalog"].attrs["exmem"]["columns"]
    assert sorted(places) == memory.slots.tolist()

    def field(name, record):
        start, dtype, shape = fields[name]
        return np.frombuffer(record.tobytes(), dtype, int(np.prod(shape, dtype=int)), start).reshape(shape)

    for row, slot in enumerate(memory.slots.tolist()):
        place, found = places[slot], batch.exemplar(row)
        record = group["e0/records"][place]
        for name in ("image", "text"):
            tokens = found.tokens[name]
            values = group["e0/image"][place] if name == "image" else field("text.values", record)
            positions = np.flatnonzero(np.unpackbits(field(f"{name}.keep", record), bitorder="little"))
            np.testing.assert_array_equal(positions, tokens.positions)
            np.testing.assert_array_equal(values[: len(tokens)], tokens.values)
            assert not values[len(tokens) :].any()
        np.testing.assert_array_equal(field("extras.embedding", record), batch.extras["embedding"][row])
        catalog = dict(zip(columns, group["e0/catalog"][place].tolist(), strict=True))
        assert catalog["label"] == found.label
        assert np.int64(catalog["priority"]).view(np.float64) == found.priority
    assert len(places) == 68, "what was evicted is still in the arrays, and not among what is held"


def test_tensorstore_reads_every_array_of_built_in_codecs(stored):
    group = zarr.open_group(stored, mode="r")
    for path in ("e0/catalog", "e0/records"):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(stored / path)}}
        found = tensorstore.open(spec, read=True).result()[...].read().result()
        np.testing.assert_array_equal(found, group[path][...])


def test_zarr_writes_payloads_that_zarr_reads_back(stored, tmp_path):
    source = zarr.open_group(stored, mode="r")["e0/image"]
    document = json.loads((stored / "e0/image/zarr.json").read_text())
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "zarr.json").write_text(json.dumps(document))
    copy = zarr.open_array(tmp_path / "copy", mode="r+")
    copy[:4] = source[:4]
    assert source[:4].any()
    if "patch_jpeg" in json.dumps(document):
        assert np.abs(copy[:4].astype(int) - source[:4]).mean() < 3  # JPEG of a JPEG
    else:
        np.testing.assert_array_equal(copy[:4], source[:4])
    assert (copy[:4].reshape(4, -1).any(axis=1) == source[:4].reshape(4, -1).any(axis=1)).all()


def test_an_empty_store_is_a_zarr_group(tmp_path):
    ExemplarMemory.create(tmp_path, schema=schema(), max_bytes="100kB").close()
    group = zarr.open_group(tmp_path, mode="r")
    assert (group["e0/catalog"][:, 1] == -1).all(), "a row that no exemplar lies in is not in use"
    assert not group["e0/records"][...].any()
    assert not group["e0/image"][0].any()
    assert dict(zarr.open_group(tmp_path / "state", mode="r").attrs["exmem"])["generation"] == 0
    assert dict(zarr.open_group(tmp_path / "lock", mode="r").attrs["exmem"]) == {}


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_what_other_tools_write_beside_exmem_harms_nothing_and_stays(stored, tmp_path):
    folder = shutil.copytree(stored, tmp_path / "m")
    group = zarr.open_group(folder, mode="r+")
    group.attrs["owner"] = {"name": "größe"}
    zarr.consolidate_metadata(folder)
    held = ExemplarMemory.open(stored).slots.tolist()
    assert check(folder) == []
    with ExemplarMemory.open(folder, "r+") as memory:
        assert memory.slots.tolist() == held
        memory.annotate(attrs={"mine": 1})
        memory.evict(memory.slots[:2])
    root = unseal((folder / "zarr.json").read_bytes())
    assert root["attributes"]["owner"] == {"name": "größe"}
    assert "consolidated_metadata" not in root, "a copy of metadata that a writer makes stale"
    assert zarr.open_group(folder, mode="r").attrs["owner"] == {"name": "größe"}


def test_stores_of_older_releases_read_as_when_they_were_written(tmp_path):
    expected = json.loads((GOLDEN / "expected.json").read_text())
    shutil.copytree(GOLDEN / "store", tmp_path / "store")
    assert check(tmp_path / "store") == []
    with ExemplarMemory.open(tmp_path / "store", mode="r+") as memory:
        assert memory.slots.tolist() == expected["slots"]
        assert memory.charges == expected["charges"]
        assert memory.max_bytes == expected["max_bytes"]
        assert memory.attrs == expected["attrs"]
        assert {str(label): name for label, name in memory.class_names.items()} == expected["class_names"]
        assert memory.quota.to_json() == expected["quota"]
        assert memory.next_slot == expected["next_slot"]
        for slot, found in zip(memory.slots.tolist(), memory.read(memory.slots), strict=True):
            seed = expected["seeds"][str(slot)]
            priority = expected["priorities"].get(str(slot), -seed)
            original = exemplar(seed, label=seed % 3, priority=priority)
            assert_same(found, original, exact=False)
            error = found.tokens["image"].values.astype(int) - original.tokens["image"].values
            assert np.abs(error).mean() < 12  # JPEG at quality 75 of these photographs; measured 3-9
            np.testing.assert_array_equal(found.tokens["text"].values, original.tokens["text"].values)
        assert memory.add([exemplar(99)]).slots.tolist() == [expected["next_slot"]]


def test_a_shard_has_exactly_the_size_that_is_counted():
    pieces = [b"abc1234", b"", b"", b"", b"", b"x1234"]
    shard = build_shard(pieces, 8)
    assert len(shard) == 7 + 5 + index_bytes(8) == 12 + 8 * 16 + 4
    index = parse_index(shard[-index_bytes(8) :], 8, len(shard))
    assert index.tolist() == [[0, 7], *[[-1, -1]] * 4, [7, 5], *[[-1, -1]] * 2]


@pytest.mark.parametrize("entry", [(0, 12), (2, 11), (13, 4), (2**63, 4), (0, 2**63), (2**63 - 1, 2**63 - 1), (0, 3)])
def test_an_index_that_leads_outside_its_shard_is_refused(entry):
    from exmem.store.format.chunks import append_crc

    index = np.array([entry, (2**64 - 1, 2**64 - 1)], "<u8")
    with pytest.raises(CodecError):
        parse_index(append_crc(index.tobytes()), 2, 11 + index_bytes(2))


@given(st.integers(1, 256), st.integers(1, 9), st.data())
def test_rows_survive_encoding_and_the_rest_of_a_chunk_is_filled(rows, columns, data):
    held = data.draw(st.integers(0, rows))
    table = np.random.default_rng(rows).integers(-(2**63), 2**63 - 1, (held, columns))
    encoded = encode_rows(table, rows, -1)
    assert len(encoded) <= most_row_bytes(8 * rows * columns)
    found = decode_rows(encoded, rows, columns, "int64")
    np.testing.assert_array_equal(found[:held], table)
    assert (found[held:] == -1).all()


@given(st.sets(st.one_of(st.integers(0, 300), st.integers(0, 2**40))))
def test_increasing_numbers_survive_packing(numbers):
    ordered = np.array(sorted(numbers), np.int64)
    np.testing.assert_array_equal(unpack_increasing(pack_increasing(ordered)), ordered)


@given(st.integers(1, 256), st.data())
def test_dead_rows_survive_packing_and_take_no_more_than_a_bitmap(rows, data):
    dead = data.draw(st.dictionaries(st.integers(0, 2**20), st.sets(st.integers(0, rows - 1), min_size=1), max_size=5))
    bits = {segment: sum(1 << place for place in places) for segment, places in dead.items()}
    tokens = {segment: dead_token(segment, own, rows) for segment, own in bits.items()}
    assert unpack_dead(pack_dead(tokens), rows) == bits
    assert all(len(token) <= 3 + 1 + -(-rows // 8) for token in tokens.values())


@given(st.binary(max_size=60), st.integers(1, 256))
def test_bytes_that_are_no_numbers_are_an_error_or_numbers(data, rows):
    for unpack in (unpack_increasing, lambda packed: unpack_dead(packed, rows)):
        try:
            found = unpack(data)
        except ValueError:
            continue
        if isinstance(found, dict):
            assert all(0 <= bits < 1 << rows for bits in found.values())
        else:
            assert (found >= 0).all()
            assert (np.diff(found) > 0).all()


@given(st.data())
def test_the_document_says_everything_and_is_never_longer_than_what_is_reserved_for_it(data):
    eras = {}
    for number in data.draw(st.sets(st.integers(0, 30), min_size=1, max_size=3)):
        rows = data.draw(st.integers(1, 256))
        live = data.draw(st.sets(st.integers(0, 400), max_size=30))
        era = Era(rows, 16 * rows, max(live, default=-1) + 1, live=np.array(sorted(live), np.int64))
        opened = max(live, default=-1)
        era = Era(rows, era.length, era.given, opened, rows if live else 0, era.live)
        dead = data.draw(st.dictionaries(st.sampled_from(sorted(live)), st.integers(1, 2**rows - 1))) if live else {}
        eras[number] = era.with_dead(dead)
    state = State("an id", 10**6, 1024, eras, 5, 7, 10**5, {"größe": 3}, 100, {"target": 2048}, {"seed": 1})
    document = state.document
    found = parse_state(document, "here")
    assert found.document == document
    assert {number: dict(era.dead) for number, era in found.eras.items()} == {
        number: dict(era.dead) for number, era in eras.items()
    }
    assert [era.live.tolist() for era in found.eras.values()] == [eras[number].live.tolist() for number in sorted(eras)]
    assert len(document) <= state.most_bytes()


def test_the_checksum_is_of_what_exmem_wrote_however_it_is_written_and_whatever_stands_beside_it():
    data = seal({"zarr_format": 3, "node_type": "group", "attributes": {"exmem": {"b": 1.5, "a": "größe"}, "other": 1}})
    document = json.loads(data)
    document["attributes"]["other"] = [2]
    document["more"] = True
    assert own_attributes(json.dumps(document, indent=2, sort_keys=True).encode())["a"] == "größe"
    for change in ({"zarr_format": 2}, {"shape": [1]}, {"attributes": {"exmem": {"b": 1.5}}}):
        with pytest.raises(ValueError, match="checksum"):
            unseal(json.dumps(document | change).encode())


def test_a_store_of_another_format_is_refused_with_its_number(stored, tmp_path):
    folder = shutil.copytree(stored, tmp_path / "m")
    document = json.loads((folder / "zarr.json").read_text())
    document["attributes"]["exmem"]["format"] = 2
    (folder / "zarr.json").write_bytes(seal(document))
    with pytest.raises(FormatError, match="written in format 2, this version of exmem reads format 1"):
        ExemplarMemory.open(folder)


@pytest.mark.parametrize(
    ("key", "parsed"),
    [
        ("e0/catalog/c.7.0", (0, "catalog", 7)),
        ("e12/image/c.3.0.0.0", (12, "image", 3)),
        ("e0/zarr.json", (0, "zarr.json", None)),
        ("e0/records/zarr.json", (0, "records", None)),
        ("zarr.json", None),
        ("state/zarr.json", None),
        ("lock/zarr.json", None),
        ("e01/catalog/c.7.0", None),
        ("e\u0663/catalog/c.7.0", None),
        ("eggs/catalog/c.7.0", None),
        ("e0/catalog/c.07.0", None),
    ],
)
def test_names_below_an_era_are_told_from_others(key, parsed):
    assert parse_key(key) == parsed
