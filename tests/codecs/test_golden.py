"""Payloads of every release decode for ever."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from exmem.codecs import CODECS, get_codec

RELEASES = sorted((Path(__file__).parent.parent / "data" / "payloads").glob("*.json"))
PAYLOADS = [
    pytest.param(entry, id=f"{file.stem}-{number}-{entry['config']['id']}")
    for file in RELEASES
    for number, entry in enumerate(json.loads(file.read_text()))
]
LOSSY_PICTURES = {"exmem.patch_jpeg", "exmem.patch_jxl", "exmem.patch_avif"}


def test_every_codec_has_golden_payloads():
    assert {entry.values[0]["config"]["id"] for entry in PAYLOADS} == set(CODECS)


@pytest.mark.parametrize("entry", PAYLOADS)
def test_a_payload_of_an_old_release_decodes_to_what_it_was(entry):
    codec = get_codec(entry["config"])
    found = codec.decode(base64.b64decode(entry["payload"]))
    expected = np.frombuffer(base64.b64decode(entry["decoded"]), codec.dtype).reshape(found.shape)
    if codec.codec_id in LOSSY_PICTURES and entry["config"].get("distance") != 0:
        # Decoders of other versions may round differently; by no more than this.
        assert np.abs(found.astype(int) - expected).max() <= 2
    else:
        np.testing.assert_array_equal(found, expected)
