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


def metadata(folder, key):
    data = (folder / key).read_bytes()
    document = json.loads(data)
    checksum = document["attributes"]["exmem"].pop("checksum")
    plain = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    assert google_crc32c.value(plain) == checksum
    return document


def checked(data):
    assert google_crc32c.value(data[:-4]) == struct.unpack("<I", data[-4:])[0]
    return data[:-4]


def row_chunk(file, shape, dtype):
    return np.frombuffer(Zstd().decode(checked(file.read_bytes())), dtype).reshape(shape)


def rows_of(folder, path, slot):
    document = metadata(folder, f"{path}/zarr.json")
    chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
    key = ".".join(["c", str(slot // chunk[0]), *("0" for _ in chunk[1:])])
    return row_chunk(folder / path / key, chunk, "<" + np.dtype(document["data_type"]).str[1:])[slot % chunk[0]]


def leb128(payload):
    count = shift = used = 0
    for byte in payload:
        count |= (byte & 0x7F) << shift
        shift, used = shift + 7, used + 1
        if byte < 0x80:
            return count, payload[used:]
    raise AssertionError


def jpeg_patches(payload, config, patch):
    count, scan = leb128(payload)
    header = bytearray(base64.b64decode(config["header"]))
    at = header.index(b"\xff\xc0") + 5  # SOF0: length, precision, then the height
    tile = -(-patch // 16) * 16
    header[at : at + 2] = struct.pack(">H", count * tile)
    picture = imagecodecs.jpeg8_decode(bytes(header) + scan + b"\xff\xd9")
    return picture.reshape(count, tile, tile, 3)[:, :patch, :patch]


@pytest.mark.parametrize("codec", ["patch_jpeg", "lossless", "raw"])
def test_a_reader_written_from_the_page_reads_what_exmem_reads(tmp_path, codec):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=schema(codec), max_bytes="500kB") as memory:
        slots = memory.add([exemplar(seed, label=seed - 5, priority=seed / 7) for seed in range(40)]).slots
        memory.evict(slots[3:20:4])
    ours = ExemplarMemory.open(folder)
    root = metadata(folder, "zarr.json")["attributes"]["exmem"]
    assert root["format"] == 1
    catalog = metadata(folder, "catalog/zarr.json")
    columns = catalog["attributes"]["exmem"]["columns"]
    shard_slots = catalog["attributes"]["exmem"]["shard_slots"]
    table = row_chunk(folder / "catalog" / "c.0.0", (len(columns), 1024), "<i8").T[: catalog["shape"][0]]
    live = np.flatnonzero(table[:, 2] != -1)
    np.testing.assert_array_equal(live, ours.slots)
    for slot in live.tolist():
        row = dict(zip(columns, table[slot].tolist(), strict=True))
        expected = ours.read([slot]).exemplar(0)
        assert row["label"] == expected.label
        assert struct.unpack("<d", struct.pack("<q", row["priority"]))[0] == expected.priority
        for name, spec in root["schema"]["modalities"].items():
            bits = np.unpackbits(rows_of(folder, f"{name}/keep", slot), bitorder="little")[: spec["positions"]]
            np.testing.assert_array_equal(np.flatnonzero(bits), expected.tokens[name].positions)
            assert bits.sum() == row[f"{name}.tokens"]
        text = rows_of(folder, "text/values", slot)[: row["text.tokens"]]
        np.testing.assert_array_equal(text, expected.tokens["text"].values)
        np.testing.assert_array_equal(rows_of(folder, "extras/embedding", slot), expected.extras["embedding"])
        shard = (folder / "image" / "values" / f"c.{slot // shard_slots}.0.0.0.0").read_bytes()
        index = np.frombuffer(checked(shard[-16 * shard_slots - 4 :]), "<u8").reshape(shard_slots, 2)
        offset, length = index[slot % shard_slots].tolist()
        payload = checked(shard[offset : offset + length])
        assert len(payload) == row["image.bytes"]
        array = metadata(folder, "image/values/zarr.json")
        config = array["codecs"][0]["configuration"]["codecs"][0]["configuration"]["codec"]
        if codec == "patch_jpeg":
            values = jpeg_patches(payload, config, 16)
        elif codec == "raw":
            values = np.frombuffer(payload, np.uint8).reshape(-1, 16, 16, 3)
        else:
            count, frame = leb128(payload)
            values = np.frombuffer(Zstd().decode(frame), np.uint8).reshape(count, 16, 16, 3)
        np.testing.assert_array_equal(values, expected.tokens["image"].values)
