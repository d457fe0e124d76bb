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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [float(np.finfo(np.float32).max), 3.4028e38, 3.40282e38])
def test_values_near_the_largest_float32_stay_finite(dtype, value):
    codec = Int8(shape=(3,), dtype=dtype)
    given = np.array([[value, -value, 0]], dtype)
    found = codec.decode(codec.encode(given))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, given, rtol=1e-6)  # of the scale, a float32
    assert codec.encode(found) == codec.encode(given)


def test_what_float32_cannot_scale_is_refused_and_what_underflows_is_zero():
    codec = Int8(shape=(2,), dtype="float64")
    with pytest.raises(CodecError, match="range of float32"):
        codec.encode(np.array([[1e300, 0]]))
    assert (codec.decode(codec.encode(np.array([[1e-300, 0]]))) == 0).all()
