"""Half precision."""

import numpy as np
import pytest

from exmem.codecs import Float16
from exmem.errors import CodecError


def test_what_would_become_infinite_is_refused():
    codec = Float16(shape=(2,))
    assert codec.decode(codec.encode(np.array([[65_504, -65_504]], np.float32))).tolist() == [[65_504, -65_504]]
    with pytest.raises(CodecError, match="use 'bfloat16'"):
        codec.encode(np.array([[65_520, 0]], np.float32))
