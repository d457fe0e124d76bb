"""Eight bits with a scale per token."""

import numpy as np
import pytest

from exmem.codecs import Int8
from exmem.errors import CodecError


def test_each_token_has_its_own_scale():
    codec = Int8(shape=(4,))
    given = np.array([[1e-6, -1e-6, 0, 5e-7], [1e6, 0, -1e6, 5e5]], np.float32)
    found = codec.decode(codec.encode(given))
    np.testing.assert_allclose(found, given, rtol=1 / 100)
    assert len(codec.encode(given)) == 2 * (4 + 4)


def test_what_float32_cannot_scale_is_refused_and_what_underflows_is_zero():
    codec = Int8(shape=(2,), dtype="float64")
    with pytest.raises(CodecError, match="range of float32"):
        codec.encode(np.array([[1e300, 0]]))
    assert (codec.decode(codec.encode(np.array([[1e-300, 0]]))) == 0).all()
