"""Raw values."""

import numpy as np
import pytest

from exmem.codecs import Raw
from exmem.errors import CodecError


def test_a_payload_is_the_little_endian_values_and_nothing_else():
    codec = Raw(shape=(2,), dtype="int16")
    assert codec.encode(np.array([[1, -2], [256, 3]], np.int16)) == b"\x01\x00\xfe\xff\x00\x01\x03\x00"


def test_bytes_that_are_no_whole_tokens_are_refused():
    with pytest.raises(CodecError, match="expected 8 bytes, got 7"):
        Raw(shape=(2,), dtype="int16").decode_into(b"1234567", np.zeros((2, 2), np.int16))
