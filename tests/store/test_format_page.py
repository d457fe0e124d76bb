"""A reader written from `exmem/store/FORMAT.md` alone: no line of exmem, and it reads what exmem reads."""

import base64
import json
import struct

import google_crc32c
import imagecodecs
import numpy as np
import pytest
from numcodecs.zstd import Zstd

from exmem import ExemplarMemory
from tests.exemplars import exemplar, schema

COVERED = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")


def metadata(folder, key):
    document = json.loads((folder / key).read_bytes())
    own = document["attributes"]["exmem"]
    checksum = own.pop("checksum")
    covered = {name: document[name] for name in COVERED if name in document} | {"exmem": own}
    plain = json.dumps(covered, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()
    assert f"{google_crc32c.value(plain):08x}" == checksum
    return document


def checked(data):
    assert google_crc32c.value(data[:-4]) == struct.unpack("<I", data[-4:])[0]
    return data[:-4]


def leb128(data):
    count = shift = used = 0
    for byte in data:
        count |= (byte & 0x7F) << shift
        shift, used = shift + 7, used + 1
        if byte < 0x80:
            return count, data[used:]
    raise AssertionError


def live_segments(text):
    data, segment, found = base64.b64decode(text), -1, []
    while data:
        gap, data = leb128(data)
        segment += gap + 1
        found.append(segment)
    return found


def dead_rows(text, rows):
    data, found = base64.b64decode(text), set()
    while data:
        segment, data = leb128(data)
        count, data = data[0], data[1:]
        if count:
            places, data = list(data[:count]), data[count:]
        else:
            width = -(-rows // 8)
            bits = np.unpackbits(np.frombuffer(data[:width], np.uint8), bitorder="little")
            places, data = np.flatnonzero(bits).tolist(), data[width:]
        found |= {(segment, place) for place in places}
    return found


def row_chunk(folder, array, segment):
    document = metadata(folder, f"{array}/zarr.json")
    rows, columns = document["chunk_grid"]["configuration"]["chunk_shape"]
    data = Zstd().decode(checked((folder / array / f"c.{segment}.0").read_bytes()))
    dtype = np.dtype(document["data_type"]).newbyteorder("<")
    return document["attributes"]["exmem"], np.frombuffer(data, dtype).reshape(columns, rows).T


def held_rows(folder):
    """Where each exemplar lies: era, its R, segment, place, and its row of the catalog by name of the column."""
    found = {}
    for number, era in metadata(folder, "state/zarr.json")["attributes"]["exmem"]["eras"].items():
        assert metadata(folder, f"e{number}/zarr.json")["attributes"]["exmem"]["rows"] == era["rows"]
        dead = dead_rows(era["dead"], era["rows"])
        for segment in live_segments(era["live"]):
            own, table = row_chunk(folder, f"e{number}/catalog", segment)
            table = table.copy()
            table[:, 0] = np.cumsum(table[:, 0])
            used = era["open_rows"] if segment == era["open"] else int((table[:, 1] >= 0).sum())
            for place in range(used):
                if (segment, place) not in dead:
                    row = dict(zip(own["columns"], table[place].tolist(), strict=True))
                    found[row["slot"]] = (number, era["rows"], segment, place, row)
    return found


def fields_of(folder, era, segment, place):
    own, table = row_chunk(folder, f"e{era}/records", segment)
    record, found = table[place].tobytes(), {}
    for name, (start, dtype, shape) in own["fields"].items():
        count = int(np.prod(shape, dtype=int))
        found[name] = np.frombuffer(record, np.dtype(dtype).newbyteorder("<"), count, start).reshape(shape)
    return found


def payload_of(folder, array, rows, segment, place):
    shard = next((folder / array).glob(f"c.{segment}.*")).read_bytes()
    index = np.frombuffer(checked(shard[-16 * rows - 4 :]), "<u8").reshape(rows, 2)
    offset, length = index[place].tolist()
    return checked(shard[offset : offset + length])


def jpeg_patches(payload, config, patch):
    count, scan = leb128(payload)
    header = bytearray(base64.b64decode(config["header"]))
    at = header.index(b"\xff\xc0") + 5  # SOF0: length, precision, then the height
    tile = -(-patch // 16) * 16
    header[at : at + 2] = struct.pack(">H", count * tile)
    picture = imagecodecs.jpeg8_decode(bytes(header) + scan + b"\xff\xd9")
    return picture.reshape(count, tile, tile, 3)[:, :patch, :patch]


def values_of(payload, config):
    if config["id"] == "exmem.patch_jpeg":
        return jpeg_patches(payload, config, 16)
    if config["id"] == "exmem.raw":
        return np.frombuffer(payload, np.uint8).reshape(-1, 16, 16, 3)
    count, frame = leb128(payload)
    return np.frombuffer(Zstd().decode(frame), np.uint8).reshape(count, 16, 16, 3)


@pytest.fixture(scope="module", params=["patch_jpeg", "lossless", "raw"])
def stored(request, tmp_path_factory):
    """Two eras, an open segment, dead rows of a full and of an open segment, notes that are no ASCII."""
    folder = tmp_path_factory.mktemp("store") / "m"
    with ExemplarMemory.create(folder, schema=schema(request.param), max_bytes="8MB", durable=False) as memory:
        for seed in range(3):
            memory.add([exemplar(seed, label=seed - 5, priority=seed / 7, kept=16)])
            memory.commit()
        slots = memory.add([exemplar(seed, label=seed - 5, priority=seed / 7) for seed in range(3, 140)]).slots
        memory.commit()
        memory.add([exemplar(seed, kept=1) for seed in range(900, 1500)])
        memory.commit()
        memory.evict(slots[3:20:4])
        memory.evict(memory.slots[-3:])
        memory.update([slots[1]], priority=-3.0)
        memory.annotate(attrs={"b": "größe", "a": [1, {"z": 0.1, "y": None}]})
    return folder


def test_a_reader_written_from_the_page_reads_what_exmem_reads(stored):
    ours = ExemplarMemory.open(stored)
    root = metadata(stored, "zarr.json")["attributes"]["exmem"]
    state = metadata(stored, "state/zarr.json")["attributes"]["exmem"]
    assert root["format"] == 1
    assert (state["next_slot"], state["max_bytes"]) == (ours.next_slot, ours.max_bytes)
    held = held_rows(stored)
    assert sorted(held) == ours.slots.tolist()
    assert any(era["dead"] for era in state["eras"].values())
    assert any(era["open"] >= 0 for era in state["eras"].values())
    assert len(state["eras"]) > 1
    for slot in [*sorted(held)[:150], *sorted(held)[-20:]]:
        era, rows, segment, place, row = held[slot]
        expected = ours.read([slot]).exemplar(0)
        assert row["label"] == expected.label
        assert struct.unpack("<d", struct.pack("<q", row["priority"]))[0] == expected.priority
        fields = fields_of(stored, era, segment, place)
        for name, spec in root["schema"]["modalities"].items():
            bits = np.unpackbits(fields[f"{name}.keep"], bitorder="little")[: spec["positions"]]
            np.testing.assert_array_equal(np.flatnonzero(bits), expected.tokens[name].positions)
            assert bits.sum() == row[f"{name}.tokens"]
        np.testing.assert_array_equal(fields["text.values"][: row["text.tokens"]], expected.tokens["text"].values)
        for name in root["schema"]["extras"]:
            np.testing.assert_array_equal(fields[f"extras.{name}"], expected.extras[name])
        payload = payload_of(stored, f"e{era}/image", rows, segment, place)
        assert len(payload) == row["image.bytes"]
        array = metadata(stored, f"e{era}/image/zarr.json")
        config = array["codecs"][0]["configuration"]["codecs"][0]["configuration"]["codec"]
        np.testing.assert_array_equal(values_of(payload, config), expected.tokens["image"].values)
