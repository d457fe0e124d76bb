"""Lossless: what is particular to it."""

import numpy as np
import pytest

from exmem.codecs import get_codec
from exmem.errors import CodecError


def test_a_frame_that_would_grow_beyond_the_tokens_is_refused():
    small = get_codec({"id": "lossless"}, shape=(), dtype="uint8")
    bomb = b"\x02" + small.encode(np.zeros(10**6, np.uint8))[3:]  # claims two tokens, holds a million
    with pytest.raises(CodecError, match="cannot be decoded"):
        small.decode(bomb)
